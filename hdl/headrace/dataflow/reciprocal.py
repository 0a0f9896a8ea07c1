"""First approximations of a reciprocal and of the reciprocal of a square root."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value

from headrace.dataflow.fp import INFINITY, QUIET_NAN

__all__ = ["reciprocal", "reciprocal_root"]

# 256 / f for f in the middle of each eighth of 1 .. 2: between 128 and 255, so that bit 7 is the hidden bit.
_TABLE = (241, 216, 195, 178, 164, 152, 141, 132)
_FRACTIONS = sum((value - 128) << (7 * eighth) for eighth, value in enumerate(_TABLE))

# 256 / sqrt(v) for v in the middle of each eighth of 1 .. 2 and for twice these: bit 7 is the hidden bit here too.
_ROOTS = (248, 235, 223, 214, 205, 197, 190, 184)
_ROOTS_OF_TWICE = (176, 166, 158, 151, 145, 139, 134, 130)


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


def reciprocal_root(m: Module, a: Value, operand: Any) -> Value:
    """fp32 bits near 1 / sqrt(a), for `a` = f * 2**e with 1 <= f < 2: R[floor(8 (f - 1))] / 256 * 2**-floor(e / 2) with
    a table R for even and one for odd e, within 2**-5 of the root; a Newton step leaves 0.0015. `operand` is `a`
    unpacked.

    Zero and subnormal numbers of either sign give +infinity, +infinity gives 0, negative numbers and NaN the quiet NaN.
    Combinational; belongs into the condition it is needed under.
    """
    fraction, exponent = Signal(7), Signal(8)
    with m.Switch(a[20:24]):  # the lowest exponent bit: the exponent's bias is odd, so 0 says that e is odd
        for index, value in enumerate(_ROOTS_OF_TWICE + _ROOTS):
            with m.Case(index):
                m.d.comb += fraction.eq(value - 128)
    # 126 - floor((E - 127) / 2) for a biased exponent E
    m.d.comb += exponent.eq(190 - operand.exponent[1:8] - operand.exponent[0])
    finite = Mux(operand.inf, 0, Cat(Const(0, 16), fraction, exponent))
    return Mux(operand.zero, INFINITY, Mux(operand.nan | operand.sign, QUIET_NAN, finite))
