"""Sum of the activations that a row multiplies, for the offsets of group scales."""

from __future__ import annotations

from collections.abc import Hashable

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.mac.products import tree_sum
from headrace.mac.rescale import XSUM

__all__ = ["ActivationSum"]


class ActivationSum(wiring.Component):
    """Sum of a row's activation codes of a group with 4-bit weights, in step with the partial sums of the PEs.

    Control is pipelined by the array; every input belongs to its stage:

    1. `load`: takes the codes: two bytes a lane, or four nibbles. `low_signed` and `high_signed` tell whether nibbles 0
       and 2, and 1 and 3, carry a sign (a byte's lower nibble does not).
    2. `add`: adds the nibbles over the lanes.
    3. `accumulate`: adds them, high nibbles of bytes (`wide`) with weight 16, to `xsum`, or replaces it when `restart`.
    """

    def __init__(self, *, lanes: int) -> None:
        self._lanes = lanes
        super().__init__(
            {
                "a": In(16).array(lanes),
                "low_signed": In(1),
                "high_signed": In(1),
                "load": In(1),
                "add": In(1),
                "accumulate": In(1),
                "restart": In(1),
                "wide": In(1),
                "xsum": Out(XSUM),
            }
        )

    @property
    def cell_key(self) -> Hashable:
        """Parameter that tells one module from another."""
        return self._lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low, high = (self._sum(m, name, first) for first, name in enumerate(("low", "high")))
        xsum = Signal(XSUM, reset_less=True)
        with m.If(self.accumulate):
            m.d.sync += xsum.eq(Mux(self.restart, 0, xsum) + Mux(self.wide, high << 4, high) + low)
        m.d.comb += self.xsum.eq(xsum)
        return m

    def _sum(self, m: Module, name: str, first: int) -> Signal:
        """Sum over the lanes of nibbles `first` and `first` + 2."""
        has_sign = self.high_signed if first else self.low_signed
        pairs = []
        for j in range(self._lanes):
            nibbles = [self.a[j].word_select(i, 4) for i in (first, first + 2)]
            pair = Signal(signed(6), name=f"{name}_{j}", reset_less=True)
            with m.If(self.load):
                m.d.sync += pair.eq(sum(Cat(n, n[3] & has_sign).as_signed() for n in nibbles))
            pairs.append(pair)
        total = Signal(signed(6 + index_bits(self._lanes)), name=name, reset_less=True)
        with m.If(self.add):
            m.d.sync += total.eq(tree_sum(pairs))
        return total
