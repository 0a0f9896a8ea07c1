"""First approximation of a reciprocal."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

from headrace.dataflow.fp import INFINITY, QUIET_NAN

__all__ = ["reciprocal"]

# 256 / m for m in the middle of each eighth of 1 .. 2; between 128 and 255, so that the top bit is a hidden bit.
_TABLE = (241, 216, 195, 178, 164, 152, 141, 132)


def reciprocal(m: Module, a: Value, operand: Any) -> Value:
    """fp32 bits near 1 / a, for `a` = +-f * 2**e with 1 <= f < 2: +-T[floor(8 (f - 1))] / 256 * 2**-e, one Newton step
    away from full precision. `operand` is `a` unpacked.

    Zero and subnormal numbers give infinity, infinity and results below the normal range zero, all with the sign of
    `a`; a NaN gives the quiet NaN.
    """
    fraction, exponent, magnitude = Signal(7), Signal(signed(9)), Signal(31)
    with m.Switch(a[20:23]):
        for eighth, value in enumerate(_TABLE):
            with m.Case(eighth):
                m.d.comb += fraction.eq(value - 128)
    m.d.comb += exponent.eq(253 - operand.exponent)
    with m.If(operand.zero):
        m.d.comb += magnitude.eq(INFINITY)
    with m.Elif(exponent > 0):
        m.d.comb += magnitude.eq(Cat(Const(0, 16), fraction, exponent[0:8]))
    return Mux(operand.nan, QUIET_NAN, Cat(magnitude, a[31]))
