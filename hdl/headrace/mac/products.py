"""The two ways in which a processing element multiplies: operands chosen at the edge of the array, sums in the PE.

Both give the same dot product of a phase. A lane carries 16 bits of activation codes and 16 bits of weight codes: one
product of bytes in A8W8, two of a byte and a nibble in A8W4, four of nibbles in A4W4. What depends on the mode is
decided at the edge, once a row or column, except how the sums count which a PE has made over all its lanes.
"""

from __future__ import annotations

from typing import Protocol

from amaranth import C, Cat, Module, Mux, Signal, Value

from headrace.config import Precision

__all__ = ["MULTIPLIERS", "DspProducts", "FusedProducts", "Products", "tree_sum"]


def tree_sum(terms: list[Value]) -> Value:
    """Sum of adjacent pairs, level by level, so that the result grows by one bit a level."""
    while len(terms) > 1:
        pairs = [terms[i] + terms[i + 1] for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


class Products(Protocol):
    """Operand preparation and arithmetic of one kind of multiplier. Everything is combinational.

    operands, bits: number of a lane's prepared operands, of activations and of weights, and the width of each.
    used: for each operand, whether it may differ from 0 in a mode.
    activations, weights: the operands of a lane from its 16 bits of codes.
    tap: the activation operands of a lane with one byte, A8W8; those of byte 0 are 0.
    steer: the two bits which `total` needs, from the mode and signedness of a phase.
    sums: for each operand, values for the PE to register, from this operand of all its lanes.
    total: dot product of the phase, signed, from all registered sums.
    """

    @property
    def operands(self) -> int: ...
    @property
    def bits(self) -> int: ...
    def activations(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]: ...
    def weights(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]: ...
    def tap(self, m: Module, byte: Value, unsigned: Value) -> list[Value]: ...
    def used(self, mode: Value) -> list[Value]: ...
    def steer(self, mode: Value, act_unsigned: Value, weight_unsigned: Value) -> Value: ...
    def sums(self, activations: list[Value], weights: list[Value]) -> list[Value]: ...
    def total(self, sums: list[list[Value]], steer: Value) -> Value: ...


def _sign(m: Module, code: Value, unsigned: Value | int) -> Signal:
    """The bit that extends `code`: its sign, or 0. A signal of its own: simulators extend by negating it."""
    sign = Signal()
    m.d.comb += sign.eq(code[-1] & ~Value.cast(unsigned)[0])
    return sign


class FusedProducts:
    """Four products of 5-bit signed factors a lane, each a nibble with its extension, in one operand of 20 bits.

    Positions hold, as activation * weight (h and l are the nibbles of a byte, digits number codes):

    | Position | A8W8    | A8W4     | A4W4    |
    |----------|---------|----------|---------|
    | 0        | ah * wh | a0h * w0 | a1 * w1 |
    | 1        | ah * wl | a1h * w1 | a3 * w3 |
    | 2        | al * wh | a0l * w0 | a0 * w0 |
    | 3        | al * wl | a1l * w1 | a2 * w2 |

    With 8-bit weights positions 0 and 2 count 16 times as much as 1 and 3, with 8-bit activations 0 and 1 than 2 and 3.
    """

    operands = 1
    bits = 20

    def activations(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]:
        low_unsigned = unsigned | (mode != Precision.A4W4)  # the low nibble of a byte has no sign
        n0, n1, n2, n3 = self._factors(m, lane, [low_unsigned, unsigned, low_unsigned, unsigned])
        one = mode == Precision.A8W8
        return [Cat(n1, Mux(one, n1, n3), n0, Mux(one, n0, n2))]

    def weights(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]:
        one = mode == Precision.A8W8
        n0, n1, n2, n3 = self._factors(m, lane, [unsigned | one, unsigned, unsigned, unsigned])
        pair, four = Cat(n0, n1, n0, n1), Cat(n1, n3, n0, n2)
        return [Mux(one, Cat(n1, n0, n1, n0), Mux(mode == Precision.A8W4, pair, four))]

    def tap(self, m: Module, byte: Value, unsigned: Value) -> list[Value]:
        low, high = self._factors(m, byte, [C(1), unsigned])
        return [Cat(high, high, low, low)]

    def used(self, mode: Value) -> list[Value]:
        return [C(1)]

    def steer(self, mode: Value, act_unsigned: Value, weight_unsigned: Value) -> Value:
        return Cat(mode == Precision.A8W8, mode != Precision.A4W4)

    def sums(self, activations: list[Value], weights: list[Value]) -> list[Value]:
        lanes = list(zip(activations, weights, strict=True))
        return [
            tree_sum([a.word_select(i, 5).as_signed() * w.word_select(i, 5).as_signed() for a, w in lanes])
            for i in range(4)
        ]

    def total(self, sums: list[list[Value]], steer: Value) -> Value:
        [[s0, s1, s2, s3]] = sums
        wide_weights, wide_activations = steer[0], steer[1]
        upper = Mux(wide_weights, s0 << 4, s0) + s1
        lower = Mux(wide_weights, s2 << 4, s2) + s3
        return Mux(wide_activations, upper << 4, upper) + lower

    def _factors(self, m: Module, codes: Value, unsigned: list[Value]) -> list[Value]:
        nibbles = [codes.word_select(i, 4) for i in range(len(unsigned))]
        return [Cat(n, _sign(m, n, u)) for n, u in zip(nibbles, unsigned, strict=True)]


class DspProducts:
    """Two products of 18-bit signed operands a lane, for the multipliers of FPGAs.

    | Multiplier | A8W8  | A8W4    | A4W4                                   |
    |------------|-------|---------|----------------------------------------|
    | 0          | a * w | a0 * w0 | (a0 + a1 * 2^S) * (w1 + w0 * 2^S)      |
    | 1          | 0     | a1 * w1 | (a2 + a3 * 2^S) * (w3 + w2 * 2^S)      |

    A packed product is low + middle * 2^S + high * 2^2S with low = a0*w1, middle = a0*w0 + a1*w1, the result. The
    products of a block of BLOCK = 8 lanes are added modulo 2^2S, before the middle is taken out. This is exact:

    - Operands: a 4-bit code, signed or not, is in -8..15, less 1 for a negative lower code: 5 + 13 = 18 bits.
    - low: 16 products. Both unsigned 0..3600, one signed -1920..1680, both signed -896..1024: in -2^12..2^12 - 1, so
      that bit 12 of the sum is its sign and adding that bit to the bits above removes its borrow from the middle.
    - middle: 32 products. Both unsigned 0..7200, in 13 bits without sign; one signed -3840..3360 and both signed
      -1792..2048, in 13 bits with sign.
    - A8W8 and A8W4: 8 products of bytes, at most 520,200 < 2^19, or 16 of a byte and a nibble: 20 bits with sign.
    """

    operands = 2
    bits = 18
    BLOCK = 8
    _S = 13

    def activations(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]:
        pack = mode == Precision.A4W4
        both = []
        for byte in (lane[:8], lane[8:]):
            low, high = byte[:4], byte[4:]
            packed = _sign(m, low, unsigned).replicate(5)
            plain = Cat(high, _sign(m, byte, unsigned))
            both.append(self._operand(m, Cat(low, Mux(pack, packed, plain)), high, pack, unsigned))
        return [both[0], Mux(mode == Precision.A8W8, 0, both[1])]

    def weights(self, m: Module, lane: Value, mode: Value, unsigned: Value) -> list[Value]:
        pack = mode == Precision.A4W4
        codes = [lane.word_select(i, 4) for i in range(4)]
        n0, n1, _, n3 = (Cat(code, _sign(m, code, unsigned).replicate(5)) for code in codes)
        byte = Cat(lane[:8], _sign(m, lane[:8], unsigned))
        first = Mux(pack, n1, Mux(mode == Precision.A8W8, byte, n0))
        operands = [(first, codes[0]), (Mux(pack, n3, n1), codes[2])]
        return [self._operand(m, low, high, pack, unsigned) for low, high in operands]

    def tap(self, m: Module, byte: Value, unsigned: Value) -> list[Value]:
        return [Cat(byte, _sign(m, byte, unsigned).replicate(10)), C(0, self.bits)]

    def used(self, mode: Value) -> list[Value]:
        return [C(1), mode != Precision.A8W8]

    def steer(self, mode: Value, act_unsigned: Value, weight_unsigned: Value) -> Value:
        return Cat(mode == Precision.A4W4, act_unsigned & weight_unsigned)

    def sums(self, activations: list[Value], weights: list[Value]) -> list[Value]:
        products = [(a.as_signed() * w.as_signed())[: 2 * self._S] for a, w in zip(activations, weights, strict=True)]
        blocks = range(0, len(products), self.BLOCK)
        return [tree_sum(products[i : i + self.BLOCK])[: 2 * self._S] for i in blocks]

    def total(self, sums: list[list[Value]], steer: Value) -> Value:
        packed, unsigned = steer[0], steer[1]
        blocks = [(first + second)[: 2 * self._S] for first, second in zip(*sums, strict=True)]
        return tree_sum([Mux(packed, self._middle(block, unsigned), block[:20].as_signed()) for block in blocks])

    def _middle(self, block: Value, unsigned: Value) -> Value:
        field = (block[self._S :] + block[self._S - 1])[: self._S]
        return Cat(field, field[-1] & ~unsigned).as_signed()

    def _operand(self, m: Module, low: Value, code: Value, pack: Value, unsigned: Value) -> Value:
        """The 9-bit signed `low`, and above it, when `pack`, a 4-bit code."""
        high = Mux(pack, Cat(code, _sign(m, code, unsigned)), 0)
        return (Cat(C(0, self._S), high).as_signed() + low.as_signed())[: self.bits]


MULTIPLIERS: dict[str, Products] = {"fused": FusedProducts(), "dsp": DspProducts()}
