"""Powers of two of a fixed-point number."""

from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

from headrace.dataflow.fp import INFINITY

__all__ = ["exponential"]

# 256 * 2**(k / 8), rounded.
_TABLE = (256, 279, 304, 332, 362, 395, 431, 470, 512)


def exponential(m: Module, a: Value) -> Value:
    """fp32 bits of 2**(a / 2**11), `a` a signed integer, with straight lines between the eighths of its fraction.

    Below the normal range 0, above it infinity. Combinational; belongs into the condition it is needed under.
    """
    whole, start, step = Signal(signed(21)), Signal(8), Signal(6)
    fraction, exponent = Signal(16), Signal(8)
    with m.Switch(a[8:11]):
        for eighth, (value, following) in enumerate(pairwise(_TABLE)):
            with m.Case(eighth):
                m.d.comb += [start.eq(value - 256), step.eq(following - value)]
    m.d.comb += [
        whole.eq(a[11:32].as_signed()),
        fraction.eq(Cat(Const(0, 8), start) + step * a[0:8]),
        exponent.eq(whole + 127),
    ]
    return Mux(whole < -126, 0, Mux(whole > 127, INFINITY, Cat(Const(0, 7), fraction, exponent)))
