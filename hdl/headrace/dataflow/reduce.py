"""Last stages of a column: reduction over consecutive beats, then over lanes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.beat import beat_layout, tag_layout, vector_layout
from headrace.dataflow.elements import valid_lanes
from headrace.isa import Reduce

__all__ = ["Reducer"]

_GROUP = 8
"""Values that one stage of the reduction over lanes merges into one: three operations after each other."""
_KINDS = tuple(kind for kind in Reduce if kind != Reduce.NONE)


def _ordered(bits: Value) -> Value:
    """Its own inverse: an integer in the order of sign and magnitude."""
    return Cat(bits[:31] ^ bits[31].replicate(31), bits[31])


class Reducer(wiring.Component):
    """Passes results on, or merges `repeat` consecutive ones of a pass into one, lane by lane as int32.

    Of every `repeat` beats (0 counts as 1), or with `row` of every beat up to one whose tag `ends` a row, the last is
    emitted with the merged value and its own tag and `kept` operand; the others leave with `valid` cleared. Partial
    results are kept for each queue and dropped after the last beat of a pass. With `across` the merged values of all
    lanes are merged too and every lane gets the result: lanes of a beat that are not valid count as the identity of the
    operation, all lanes of the emitted beat are valid. FMAX and FMIN compare sign and magnitude. The result becomes x,
    or y if `to_y`; `kept` becomes the other. Latency `latency(lanes)`, one beat a cycle.

    With `float_sum` the beats of FSUM are chosen and tagged like those of other reductions with `across`, and another
    block finds their sum: `sums` marks its beats in the cycle of their arrival, `first` and `complete` those that begin
    and end a sum. Without, FSUM is no reduction, as codes without a name are none.
    """

    def __init__(self, *, lanes: int, contexts: int, float_sum: bool) -> None:
        self._lanes, self._float_sum = lanes, float_sum
        self._tag = tag_layout(lanes=lanes, contexts=contexts)
        # What passes from the reduction over beats to that over lanes. merge: the lanes are to be merged.
        self._stage = data.StructLayout(
            {"value": vector_layout(lanes), "kept": vector_layout(lanes), "to_y": 1, "kind": Reduce, "merge": 1}
        )
        super().__init__(
            {
                "tag": In(self._tag),
                "result": In(vector_layout(lanes)),
                "kept": In(vector_layout(lanes)),
                "to_y": In(1),
                "kind": In(Reduce),
                "across": In(1),
                "row": In(1),
                "repeat": In(16),
                "sums": Out(1),
                "first": Out(1),
                "complete": Out(1),
                "o": Out(beat_layout(lanes=lanes, contexts=contexts)),
            }
        )

    @staticmethod
    def latency(lanes: int) -> int:
        """1, and one cycle for each stage that merges lanes eight by eight."""
        cycles = 1
        while lanes > 1:
            lanes, cycles = -(-lanes // _GROUP), cycles + 1
        return cycles

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tag, stage = Signal(self._tag, name="tag_0"), Signal(self._stage, name="stage_0")
        self._over_beats(m, tag, stage)
        left = self._lanes
        for number in range(1, self.latency(self._lanes)):
            next_tag = Signal(self._tag, name=f"tag_{number}")
            held = Signal(self._stage, name=f"held_{number}", reset_less=True)
            m.d.sync += next_tag.eq(tag)
            with m.If(tag.valid):
                m.d.sync += held.eq(stage)
            tag, stage = next_tag, Signal(self._stage, name=f"stage_{number}")
            m.d.comb += stage.eq(held)
            left = self._over_lanes(m, held, stage, left)
        value = Signal(vector_layout(self._lanes))
        m.d.comb += value.eq(stage.value)
        m.d.sync += self.o.tag.eq(tag)
        with m.If(tag.valid):
            with m.If((stage.kind == Reduce.FMAX) | (stage.kind == Reduce.FMIN)):
                m.d.comb += [value[lane].eq(_ordered(stage.value[lane])) for lane in range(self._lanes)]
            m.d.sync += [
                self.o.x.eq(Mux(stage.to_y, stage.kept.as_value(), value.as_value())),
                self.o.y.eq(Mux(stage.to_y, value.as_value(), stage.kept.as_value())),
            ]
        return m

    def _over_beats(self, m: Module, tag: data.View, stage: data.View) -> None:
        """Choose the beats that stay and merge the others into them."""
        reduces, merging, folding, whole = Signal(), Signal(), Signal(), Signal()
        with m.Switch(self.kind):
            with m.Case(*(kind for kind in _KINDS if kind != Reduce.FSUM or self._float_sum)):
                m.d.comb += reduces.eq(1)
        m.d.comb += [
            merging.eq(self.tag.valid & reduces),
            self.sums.eq(merging & (self.kind == Reduce.FSUM)),
            folding.eq(merging & ~self.sums),
            whole.eq(self.sums | (folding & self.across)),
            tag.eq(self.tag),
            stage.kept.eq(self.kept),
            stage.to_y.eq(self.to_y),
            stage.kind.eq(self.kind),
            stage.merge.eq(folding & self.across),
        ]
        self._count(m, merging)
        with m.If(merging & ~self.complete):
            m.d.comb += tag.valid.eq(0)
        with m.If(whole):
            m.d.comb += tag.lanes.eq(self._lanes)

        identity, ignored = Signal(32), Signal(self._lanes)
        with m.If(folding & self.across):
            m.d.comb += ignored.eq(~valid_lanes(m, self.tag.lanes, most=self._lanes))
        with m.Switch(self.kind):
            with m.Case(Reduce.MAX, Reduce.FMAX):
                m.d.comb += identity.eq(1 << 31)
            with m.Case(Reduce.MIN, Reduce.FMIN):
                m.d.comb += identity.eq((1 << 31) - 1)
        for lane in range(self._lanes):
            m.d.comb += stage.value[lane].eq(self._accumulate(m, lane, identity, ignored[lane], folding))

    def _count(self, m: Module, merging: Signal) -> None:
        """Which beats are the first and the last of a reduction."""
        counts = [Signal(16, name=f"count_{q}") for q in range(2)]
        started = [Signal(name=f"started_{q}") for q in range(2)]  # a row may have more beats than are counted
        queue, count = self.tag.queue, Signal(16)
        m.d.comb += [
            count.eq(Mux(queue, counts[1], counts[0])),
            self.first.eq(~Mux(queue, started[1], started[0])),
            self.complete.eq(Mux(self.row, self.tag.ends, count + 1 >= self.repeat)),
        ]
        for q in range(2):
            with m.If(self.tag.present & (queue == q)):
                with m.If(self.tag.last | (merging & self.complete)):
                    m.d.sync += [counts[q].eq(0), started[q].eq(0)]
                with m.Elif(merging):
                    m.d.sync += [counts[q].eq(count + 1), started[q].eq(1)]

    def _accumulate(self, m: Module, lane: int, identity: Signal, ignored: Value, folding: Signal) -> Signal:
        """Value of one lane after this beat; also keeps it."""
        partials = [Signal(32, name=f"partial_{q}_{lane}") for q in range(2)]
        result, merged = Signal(32, name=f"result_{lane}"), Signal(32, name=f"merged_{lane}")
        m.d.comb += [result.eq(self.result[lane]), merged.eq(result)]
        with m.If(folding):
            with m.If(ignored):
                m.d.comb += result.eq(identity)
            with m.Elif((self.kind == Reduce.FMAX) | (self.kind == Reduce.FMIN)):
                m.d.comb += result.eq(_ordered(self.result[lane]))
            with m.If(~self.first):
                partial = Signal(32, name=f"partial_{lane}")
                m.d.comb += partial.eq(Mux(self.tag.queue, partials[1], partials[0]))
                self._merge(m, self.kind, partial, result, merged)
        for q in range(2):
            with m.If(folding & (self.tag.queue == q)):
                m.d.sync += partials[q].eq(merged)
        return merged

    def _over_lanes(self, m: Module, held: data.View, stage: data.View, left: int) -> int:
        """Merge groups of the first `left` values into the first places, or all into every place; how many remain."""
        remain = -(-left // _GROUP)
        with m.If(held.merge):
            for group in range(remain):
                values = [held.value[lane] for lane in range(group * _GROUP, min(left, (group + 1) * _GROUP))]
                total = self._tree(m, held.kind, values, f"{left}_{group}")
                m.d.comb += [stage.value[lane].eq(total) for lane in ([group] if remain > 1 else range(self._lanes))]
        return remain

    def _tree(self, m: Module, kind: Value, values: list[Value], name: str) -> Value:
        if len(values) == 1:
            return values[0]
        half = -(-len(values) // 2)
        left, right = self._tree(m, kind, values[:half], name + "l"), self._tree(m, kind, values[half:], name + "r")
        merged = Signal(32, name=f"tree_{name}")
        self._merge(m, kind, left, right, merged)
        return merged

    def _merge(self, m: Module, kind: Value, a: Value, b: Value, to: Signal) -> None:
        """The operation of a reduction on two values."""
        first, second = Signal(signed(32), name=f"{to.name}_a"), Signal(signed(32), name=f"{to.name}_b")
        m.d.comb += [first.eq(a), second.eq(b)]
        with m.Switch(kind):
            with m.Case(Reduce.SUM):
                m.d.comb += to.eq(first + second)
            with m.Case(Reduce.MAX, Reduce.FMAX):
                m.d.comb += to.eq(Mux(first > second, first, second))
            with m.Case(Reduce.MIN, Reduce.FMIN):
                m.d.comb += to.eq(Mux(first < second, first, second))
