"""First approximation of a reciprocal."""

from typing import Any

from amaranth import Cat, Const, Mux, Value

from headrace.dataflow.fp import INFINITY, QUIET_NAN

__all__ = ["reciprocal"]

# 256 / f for f in the middle of each eighth of 1 .. 2: between 128 and 255, so that bit 7 is the hidden bit.
_TABLE = (241, 216, 195, 178, 164, 152, 141, 132)
_FRACTIONS = sum((value - 128) << (7 * eighth) for eighth, value in enumerate(_TABLE))


def reciprocal(a: Value, operand: Any) -> Value:
    """fp32 bits near 1 / a, for `a` = +-f * 2**e with 1 <= f < 2: +-T[floor(8 (f - 1))] / 256 * 2**-e, one Newton step
    away from full precision. `operand` is `a` unpacked.

    Zero and subnormal numbers give infinity, infinity and results below the normal range zero, all with the sign of
    `a`; a NaN gives the quiet NaN.
    """
    fraction = Const(_FRACTIONS, 56).word_select(a[20:23], 7)
    normal = Cat(Const(0, 16), fraction, (253 - operand.exponent)[0:8])
    magnitude = Mux(operand.zero, INFINITY, Mux(operand.exponent < 253, normal, 0))
    return Mux(operand.nan, QUIET_NAN, Cat(magnitude, a[31]))
