"""A reciprocal and the reciprocal of a square root, with straight lines between the entries of a table."""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value

from headrace.dataflow.fp import INFINITY, QUIET_NAN

__all__ = ["reciprocal", "reciprocal_root"]

_REST_BITS = 8
"""Fraction bits between two entries that count."""

# In 65,536ths, so that an entry with the rest's bits is a mantissa of 24 bits: 1 / f for f = 1, 1 + 1/32 .. 2.
_RECIPROCALS = [round(65536 / (1 + i / 32)) for i in range(33)]
# 1 / sqrt(f) for f = 1, 1 + 1/16 .. 2, and for twice these.
_ROOTS = [round(65536 / sqrt(1 + i / 16)) for i in range(17)]
_ROOTS_OF_TWICE = [round(65536 / sqrt(2 * (1 + i / 16))) for i in range(17)]


def _line(m: Module, name: str, index: Value, tables: Sequence[Sequence[int]], rest: Value) -> Signal:
    """Mantissa of 25 bits, in 2**-24ths: the entry minus its distance to the next times `rest`; `index` counts through
    all tables."""
    pairs = [pair for table in tables for pair in pairwise(table)]
    step_bits = max(left - right for left, right in pairs).bit_length()
    start, step, drop = Signal(17, name=f"{name}_start"), Signal(step_bits, name=f"{name}_step"), Signal(25)
    product = Signal(step_bits + _REST_BITS, name=f"{name}_product")
    with m.Switch(index):
        for number, (left, right) in enumerate(pairs):
            with m.Case(number):
                m.d.comb += [start.eq(left), step.eq(left - right)]
    m.d.comb += [product.eq(step * rest), drop.eq(Cat(Const(0, _REST_BITS), start) - product)]
    return drop


def reciprocal(m: Module, a: Value, operand: Any) -> Value:
    """fp32 bits of 1 / a to 11 bits, for `a` = +-f * 2**e with 1 <= f < 2; `operand` is `a` unpacked.

    Zero and subnormal numbers give infinity, infinity and results below the normal range zero, all with the sign of
    `a`; a NaN gives the quiet NaN. Combinational; belongs into the condition it is needed under.
    """
    mantissa = _line(m, "reciprocal", a[18:23], [_RECIPROCALS], a[10:18])
    exponent = Signal(8)
    # f = 1 gives 1, whose mantissa has bit 24 set and no other; all others lie in 1/2 .. 1.
    m.d.comb += exponent.eq(253 - operand.exponent + mantissa[24])
    tiny = (operand.exponent > 253) | ((operand.exponent == 253) & ~mantissa[24])
    normal = Cat(mantissa[0:23], exponent)
    magnitude = Mux(operand.zero, INFINITY, Mux(tiny, 0, normal))
    return Mux(operand.nan, QUIET_NAN, Cat(magnitude[0:31], a[31]))


def reciprocal_root(m: Module, a: Value, operand: Any) -> Value:
    """fp32 bits of 1 / sqrt(a) to 11 bits, for `a` = f * 2**e with 1 <= f < 2; `operand` is `a` unpacked.

    Zero and subnormal numbers of either sign give +infinity, +infinity gives 0, negative numbers and NaN the quiet NaN.
    Combinational; belongs into the condition it is needed under.
    """
    # The lowest exponent bit leads: the exponent's bias is odd, so 0 says that e is odd.
    mantissa = _line(m, "root", a[19:24], [_ROOTS_OF_TWICE, _ROOTS], a[11:19])
    exponent = Signal(8)
    # 126 - floor((E - 127) / 2) for a biased exponent E, one more where the mantissa is 1.
    m.d.comb += exponent.eq(190 - operand.exponent[1:8] - operand.exponent[0] + mantissa[24])
    finite = Mux(operand.inf, 0, Cat(mantissa[0:23], exponent))
    return Mux(operand.zero, INFINITY, Mux(operand.nan | operand.sign, QUIET_NAN, finite))
