"""Last stage of a column: reduction over consecutive beats."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.beat import beat_layout, tag_layout, vector_layout
from headrace.isa import Reduce

__all__ = ["Reducer"]


class Reducer(wiring.Component):
    """Passes results on, or merges `repeat` consecutive ones of a pass into one, lane by lane as int32.

    Of every `repeat` beats (0 counts as 1) the last is emitted with the merged value and its own tag and `kept`
    operand; the others leave with `valid` cleared. Partial results are kept for each queue and dropped after the last
    beat of a pass. The result becomes x, or y if `to_y`; `kept` becomes the other. Latency `LATENCY`, one beat a cycle.
    """

    LATENCY = 1

    def __init__(self, *, lanes: int, contexts: int) -> None:
        self._lanes = lanes
        super().__init__(
            {
                "tag": In(tag_layout(lanes=lanes, contexts=contexts)),
                "result": In(vector_layout(lanes)),
                "kept": In(vector_layout(lanes)),
                "to_y": In(1),
                "kind": In(Reduce),
                "repeat": In(16),
                "o": Out(beat_layout(lanes=lanes, contexts=contexts)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = [Signal(16, name=f"count_{q}") for q in range(2)]
        count = Signal(16)
        first, complete, merging = Signal(), Signal(), Signal()
        queue = self.tag.queue
        m.d.comb += [
            count.eq(Mux(queue, counts[1], counts[0])),
            first.eq(count == 0),
            complete.eq(count + 1 >= self.repeat),
            merging.eq(self.tag.valid & (self.kind != Reduce.NONE)),
        ]
        for q in range(2):
            with m.If(self.tag.present & (queue == q)):
                with m.If(self.tag.last | (merging & complete)):
                    m.d.sync += counts[q].eq(0)
                with m.Elif(merging):
                    m.d.sync += counts[q].eq(count + 1)

        m.d.sync += self.o.tag.eq(self.tag)
        with m.If(merging & ~complete):
            m.d.sync += self.o.tag.valid.eq(0)
        for lane in range(self._lanes):
            merged = self._merge(m, lane, first, merging)
            m.d.sync += [
                self.o.x[lane].eq(Mux(self.to_y, self.kept[lane], merged)),
                self.o.y[lane].eq(Mux(self.to_y, merged, self.kept[lane])),
            ]
        return m

    def _merge(self, m: Module, lane: int, first: Signal, merging: Signal) -> Signal:
        """Value of one lane after this beat; also keeps it."""
        partials = [Signal(signed(32), name=f"partial_{q}_{lane}") for q in range(2)]
        partial, result = Signal(signed(32), name=f"partial_{lane}"), Signal(signed(32), name=f"result_{lane}")
        merged = Signal(32, name=f"merged_{lane}")
        m.d.comb += [
            partial.eq(Mux(self.tag.queue, partials[1], partials[0])),
            result.eq(self.result[lane]),
            merged.eq(result),
        ]
        with m.If(merging & ~first), m.Switch(self.kind):
            with m.Case(Reduce.SUM):
                m.d.comb += merged.eq(partial + result)
            with m.Case(Reduce.MAX):
                m.d.comb += merged.eq(Mux(partial > result, partial, result))
            with m.Case(Reduce.MIN):
                m.d.comb += merged.eq(Mux(partial < result, partial, result))
        for q in range(2):
            with m.If(merging & (self.tag.queue == q)):
                m.d.sync += partials[q].eq(merged)
        return merged
