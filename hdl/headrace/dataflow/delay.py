"""Beats that arrive later."""

from amaranth.hdl import Cat, Module, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.dataflow.beat import beat_layout, tag_layout
from headrace.memory.ram import RamBank

__all__ = ["BeatDelay"]


class BeatDelay(wiring.Component):
    """Beats leave `cycles` after they came, one a cycle; operands only of slots that are `valid`.

    A ring of memories, one a lane and one for the tags, which rest while slots are empty.
    """

    def __init__(self, *, lanes: int, contexts: int, cycles: int) -> None:
        if cycles <= RamBank.LATENCY:
            raise ValueError(f"a delay through memories takes more than {RamBank.LATENCY} cycles")
        self._lanes, self._contexts, self._cycles = lanes, contexts, cycles
        beat = beat_layout(lanes=lanes, contexts=contexts)
        super().__init__({"i": In(beat), "o": Out(beat)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self._cycles - RamBank.LATENCY
        present, valid, place = Signal(self._cycles), Signal(depth), Signal(index_bits(depth))
        m.d.sync += [
            present.eq(Cat(self.i.tag.present, present)),
            valid.eq(Cat(self.i.tag.valid, valid)),
            place.eq(place + 1),
        ]
        with m.If(place == depth - 1):
            m.d.sync += place.eq(0)

        layout = tag_layout(lanes=self._lanes, contexts=self._contexts)
        tag = data.View(layout, self._ring(m, platform, "tags", self.i.tag, self.i.tag.present, present, place))
        m.d.comb += [
            self.o.tag.eq(tag),
            self.o.tag.present.eq(present[-1]),
            self.o.tag.valid.eq(present[-1] & tag.valid),
        ]
        for lane in range(self._lanes):
            both = Cat(self.i.x[lane], self.i.y[lane])
            delayed = self._ring(m, platform, f"lane_{lane}", both, self.i.tag.valid, valid, place)
            m.d.comb += [self.o.x[lane].eq(delayed[:32]), self.o.y[lane].eq(delayed[32:])]
        return m

    def _ring(
        self,
        m: Module,
        platform: object,
        name: str,
        value: data.View | Value,
        taken: Value,
        were: Signal,
        place: Signal,
    ) -> Value:
        """`value` of the slots that are `taken`, `cycles` later; `were` has those that came before, youngest first.

        The word that is read is the one that is written in the same cycle: it still holds what came a round ago.
        """
        depth, width = self._cycles - RamBank.LATENCY, Shape.cast(Value.cast(value).shape()).width
        ring = RamBank(depth=depth, width=width, granule=width)
        add_cell(m, name, ring, platform)
        m.d.comb += [
            ring.r_en.eq(were[depth - 1]),
            ring.r_addr.eq(place),
            ring.w_mask.eq(taken),
            ring.w_addr.eq(place),
            ring.w_data.eq(value),
        ]
        return ring.r_data
