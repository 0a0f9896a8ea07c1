"""The processing element: K multipliers, one partial sum, 2T accumulators."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

__all__ = ["Pe"]


def tree_sum(terms: list[Value]) -> Value:
    """Sum of adjacent pairs, level by level, so that the result grows by one bit a level."""
    while len(terms) > 1:
        pairs = [terms[i] + terms[i + 1] for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


class Pe(wiring.Component):
    """Dot products of K signed bytes, summed over the phases of a step and added to an accumulator.

    Control is pipelined by the array, which serves all PEs with one set of registers; every input belongs to its stage:

    1. `multiply`: the dot product of `a` and `w` (K bytes each, byte j is bits 8j..8j+7) is registered.
    2. `add`: it is added to the partial sum, or replaces it when `restart` is set (first phase of a step).
    3. `accumulate`: the partial sum is added to accumulator `address`, or replaces it when `overwrite` is set. The next
       cycle may name the same accumulator. `overflow` tells in the following cycle whether the sum left int32.

    `drain_data` is accumulator `drain_address`, combinational. Accumulators hold no reset value.
    """

    LATENCY = 3  # cycles from operands to the accumulator

    def __init__(self, *, lanes: int, accs: int) -> None:
        self._lanes = lanes
        self._accs = accs
        super().__init__(
            {
                "a": In(8 * lanes),
                "w": In(8 * lanes),
                "multiply": In(1),
                "add": In(1),
                "restart": In(1),
                "accumulate": In(1),
                "overwrite": In(1),
                "address": In(index_bits(2 * accs)),
                "overflow": Out(1),
                "drain_address": In(index_bits(2 * accs)),
                "drain_data": Out(32),
            }
        )

    @property
    def cell_key(self) -> tuple[int, int]:
        """Parameters that tell one PE module from another."""
        return (self._lanes, self._accs)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = [
            self.a.word_select(j, 8).as_signed() * self.w.word_select(j, 8).as_signed() for j in range(self._lanes)
        ]
        dot = Signal(signed(16 + index_bits(self._lanes)))
        partial = Signal(signed(len(dot) + 1))
        with m.If(self.multiply):
            m.d.sync += dot.eq(tree_sum(products))
        with m.If(self.add):
            m.d.sync += partial.eq(dot + Mux(self.restart, 0, partial))

        m.submodules.accumulators = accumulators = memory.Memory(shape=signed(32), depth=2 * self._accs, init=[])
        write = accumulators.write_port()
        read = accumulators.read_port(domain="comb")
        drain = accumulators.read_port(domain="comb")
        total = Signal(signed(33))
        m.d.comb += [
            read.addr.eq(self.address),
            total.eq(partial + Mux(self.overwrite, 0, read.data)),
            write.addr.eq(self.address),
            write.data.eq(total),
            write.en.eq(self.accumulate),
            drain.addr.eq(self.drain_address),
            self.drain_data.eq(drain.data),
        ]
        m.d.sync += self.overflow.eq(self.accumulate & (total[32] != total[31]))
        return m
