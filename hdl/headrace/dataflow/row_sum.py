"""fp32 sums of rows of beats in an order that does not depend on the number of lanes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.dataflow.beat import vector_layout
from headrace.dataflow.elements import valid_lanes
from headrace.dataflow.float_add import FloatAdd

__all__ = ["RowSum"]

_BLOCK = 32
"""Elements of a pairwise tree."""
_PARTIALS = 8
"""Blocks that are summed apart from each other."""


class RowSum(wiring.Component):
    """Adds up the elements of the beats of a row, lane 0 of the first beat first; lanes that are not valid are +0.

    A pairwise tree over each aligned 32 elements, block b added to partial b mod 8, a pairwise tree over the partials;
    what a row's last block lacks, and partials at first, are +0. The lanes' part of the first tree works inside a beat;
    the rest of it, one level after the other, holds a value until its partner comes or the row ends.

    A beat is there if `valid`; `first`, `ends`: of its row. Rows of the two queues may interleave anyhow; a row whose
    end never comes is forgotten with the next `first` of its queue. `sum.valid` pulses `LATENCY` cycles after the last
    beat of a row, with the sum in `sum.value` and that beat's `mark` in `sum.mark`. One beat a cycle, no stalls.
    """

    LATENCY = (_BLOCK.bit_length() - 1 + 1 + _PARTIALS.bit_length() - 1) * FloatAdd.LATENCY

    def __init__(self, *, lanes: int) -> None:
        if lanes & (lanes - 1) or not 1 <= lanes <= 2 * _BLOCK:
            raise ValueError("sums of rows need a power of two of lanes, at most 64")
        self._lanes = lanes
        self._blocks = -(-lanes // _BLOCK)  # blocks that a beat completes
        self._period = _BLOCK * _PARTIALS // lanes  # beats after which the first partial is next again
        # What goes with a value from level to level. number: of the last beat in it, within the period; again: the row
        # is longer than a period.
        self._item = data.StructLayout(
            {"valid": 1, "queue": 1, "number": index_bits(self._period), "again": 1, "ends": 1, "mark": 1}
        )
        super().__init__(
            {
                "valid": In(1),
                "queue": In(1),
                "first": In(1),
                "ends": In(1),
                "mark": In(1),
                "lanes": In(range(lanes + 1)),
                "x": In(vector_layout(lanes)),
                "sum": Out(data.StructLayout({"valid": 1, "mark": 1, "value": 32})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        item, values = self._arrival(m)
        while len(values) > self._blocks:
            item, values = self._add(m, platform, f"lanes_{len(values)}", item, list(zip(values[::2], values[1::2])))
        for bit in range((_BLOCK // self._lanes).bit_length() - 1 if self._blocks == 1 else 0):
            item, values = self._pair(m, platform, bit, item, values[0])
        item, values = self._accumulate(m, platform, item, values)
        while len(values) > 1:
            item, values = self._add(m, platform, f"partials_{len(values)}", item, list(zip(values[::2], values[1::2])))
        m.d.comb += [self.sum.valid.eq(item.valid), self.sum.mark.eq(item.mark), self.sum.value.eq(values[0])]
        return m

    def _arrival(self, m: Module) -> tuple[data.View, list[Value]]:
        """The beat of this cycle with its number."""
        item = Signal(self._item, name="beat")
        valid = valid_lanes(m, self.lanes, most=self._lanes)
        m.d.comb += [
            item.valid.eq(self.valid),
            *(item[name].eq(getattr(self, name)) for name in ("queue", "ends", "mark")),
        ]
        for queue in range(2):
            number, again = Signal(range(self._period), name=f"number_{queue}"), Signal(name=f"again_{queue}")
            with m.If(self.valid & (self.queue == queue)):
                with m.If(~self.first):
                    m.d.comb += [item.number.eq(number), item.again.eq(again)]
                m.d.sync += [
                    number.eq(item.number + 1),
                    again.eq(item.again | (item.number == self._period - 1)),
                ]
        return item, [Mux(valid[lane], self.x[lane], 0) for lane in range(self._lanes)]

    def _add(
        self, m: Module, platform: object, name: str, item: data.View, pairs: list[tuple[Value, Value]]
    ) -> tuple[data.View, list[Value]]:
        """The sums of `pairs`, and `item` when they are there."""
        enables, stage = [item.valid], item
        for number in range(1, FloatAdd.LATENCY + 1):
            following = Signal(self._item, name=f"{name}_item_{number}")
            m.d.sync += following.valid.eq(stage.valid)
            with m.If(stage.valid):
                m.d.sync += [following[key].eq(stage[key]) for key, _ in self._item if key != "valid"]
            stage = following
            enables.append(stage.valid)
        sums: list[Value] = []
        for number, (a, b) in enumerate(pairs):
            adder = FloatAdd()
            add_cell(m, f"{name}_{number}", adder, platform)
            m.d.comb += [adder.en.eq(Cat(enables[: FloatAdd.LATENCY])), adder.a.eq(a), adder.b.eq(b)]
            sums.append(adder.o)
        return stage, sums

    def _pair(
        self, m: Module, platform: object, bit: int, item: data.View, value: Value
    ) -> tuple[data.View, list[Value]]:
        """Level of the tree over a block's beats: bit `bit` of a beat's number tells the first of a pair, 0."""
        name = f"pair_{bit}"
        held = [Signal(32, name=f"{name}_{queue}", reset_less=True) for queue in range(2)]
        passes = Signal(self._item, name=f"{name}_item")
        second = item.number[bit]
        for queue in range(2):
            with m.If(item.valid & ~second & (item.queue == queue)):
                m.d.sync += held[queue].eq(value)
        m.d.comb += [passes.eq(item), passes.valid.eq(item.valid & (second | item.ends))]
        partner = Mux(second, Mux(item.queue, held[1], held[0]), 0)
        return self._add(m, platform, name, passes, [(partner, value)])

    def _accumulate(
        self, m: Module, platform: object, item: data.View, blocks: list[Value]
    ) -> tuple[data.View, list[Value]]:
        """Add blocks to their partials. A row's last block gives the partials of the row.

        A partial is next again after a period at the earliest, which is longer than an addition.
        """
        assert self._period > FloatAdd.LATENCY or self._blocks == 1
        partials = [
            [Signal(32, name=f"partial_{queue}_{number}", reset_less=True) for number in range(_PARTIALS)]
            for queue in range(2)
        ]
        places = self._places(item)
        pairs = []
        for block, value in enumerate(blocks):
            partial = Signal(32, name=f"partial_{block}")
            for queue in range(2):
                with m.If(item.valid & item.again & (item.queue == queue)), m.Switch(places):
                    for place in range(_PARTIALS // self._blocks):
                        with m.Case(place):
                            m.d.comb += partial.eq(partials[queue][place * self._blocks + block])
            pairs.append((partial, value))
        item, sums = self._add(m, platform, "blocks", item, pairs)

        places, ending, row = self._places(item), Signal(self._item, name="row_item"), []
        m.d.comb += [ending.eq(item), ending.valid.eq(item.valid & item.ends)]
        for number in range(_PARTIALS):
            place, total = number // self._blocks, sums[number % self._blocks]
            kept = Signal(32, name=f"row_{number}")
            for queue in range(2):
                with m.If(item.valid & (item.queue == queue)):
                    with m.If(places == place):
                        m.d.sync += partials[queue][number].eq(total)
                        m.d.comb += kept.eq(total)
                    with m.Elif(item.ends & (item.again | (places > place))):
                        m.d.comb += kept.eq(partials[queue][number])
            row.append(kept)
        return ending, row

    def _places(self, item: data.View) -> Value:
        """Which partials, or pair of them, the blocks of `item` belong to."""
        return item.number[(self._period // (_PARTIALS // self._blocks)).bit_length() - 1 :]
