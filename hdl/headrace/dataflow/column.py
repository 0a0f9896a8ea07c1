"""One column of the dataflow array."""

from collections.abc import Hashable
from itertools import pairwise

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.dataflow.beat import beat_layout, tag_layout, vector_layout
from headrace.dataflow.lane import Lane
from headrace.dataflow.reduce import Reducer
from headrace.isa import CONTEXT_BITS, CONTEXT_WORDS, Reduce, Source
from headrace.isa.layout import context_layout
from headrace.memory.ram import RamBank

__all__ = ["Column"]


class Column(wiring.Component):
    """Cell: context memory, private memory, operand switch, lanes and reduction.

    ::

        cycle 0   beat arrives, its context is read
        cycle 1   address of the private memory
        cycle 2   operands from x, y and the immediate
        cycle 3   operands complete, lanes start
        cycle 7   results, reduction
        cycle 8   beat leaves

    A beat leaves `LATENCY` cycles after it arrived; one beat a cycle, no stalls. Words of the private memory are
    addressed modulo its (rounded up) size. `clear` empties the column; memories keep their contents.

    load_context, load_memory: write `load_data` to 32-bit element `load_element` of word `load_word` of that memory;
    seen by beats that arrive two cycles later.
    """

    LATENCY = 3 + Lane.LATENCY + Reducer.LATENCY

    def __init__(self, *, lanes: int, contexts: int, words: int) -> None:
        self._lanes, self._contexts, self._words = lanes, contexts, words
        beat = beat_layout(lanes=lanes, contexts=contexts)
        super().__init__(
            {
                "i": In(beat),
                "o": Out(beat),
                "clear": In(1),
                "load_context": In(1),
                "load_memory": In(1),
                "load_word": In(max(index_bits(contexts), index_bits(words))),
                "load_element": In(max(index_bits(CONTEXT_WORDS), index_bits(lanes))),
                "load_data": In(32),
            }
        )

    @property
    def cell_key(self) -> Hashable:
        return self._lanes, self._contexts, self._words

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = beat_layout(lanes=self._lanes, contexts=self._contexts)
        beat_1, beat_2 = Signal(beat), Signal(beat)
        m.d.sync += [beat_1.eq(self.i), beat_2.eq(beat_1)]

        context = self._context(m)
        memory = self._memory(m, platform, context, beat_1)
        context_2 = Signal(context_layout())
        m.d.sync += context_2.eq(context)
        a = self._operand(m, "a", context_2.a, context_2.imm, beat_2, memory)
        b = self._operand(m, "b", context_2.b, context_2.imm, beat_2, memory)

        after = data.StructLayout(
            {
                "tag": tag_layout(lanes=self._lanes, contexts=self._contexts),
                "kept": vector_layout(self._lanes),
                "to_y": 1,
                "kind": Reduce,
                "repeat": 16,
            }
        )
        stages = [Signal(after, name=f"after_{i}") for i in range(Lane.LATENCY + 1)]
        op, shift = Signal(6), Signal(5)
        m.d.sync += [
            op.eq(context_2.op),
            shift.eq(context_2.sh),
            stages[0].tag.eq(beat_2.tag),
            stages[0].kept.eq(Mux(context_2.dst, beat_2.x.as_value(), beat_2.y.as_value())),
            stages[0].to_y.eq(context_2.dst),
            stages[0].kind.eq(context_2.reduce),
            stages[0].repeat.eq(context_2.repeat),
            *(after.eq(before) for before, after in pairwise(stages)),
        ]

        reducer = Reducer(lanes=self._lanes, contexts=self._contexts)
        m.submodules.reducer = ResetInserter(self.clear)(reducer)
        for lane in range(self._lanes):
            unit = Lane()
            add_cell(m, f"lane_{lane}", unit, platform)
            m.d.comb += [
                unit.op.eq(op),
                unit.shift.eq(shift),
                unit.a.eq(a[lane]),
                unit.b.eq(b[lane]),
                reducer.result[lane].eq(unit.o),
            ]
        m.d.comb += [
            reducer.tag.eq(stages[-1].tag),
            reducer.kept.eq(stages[-1].kept),
            reducer.to_y.eq(stages[-1].to_y),
            reducer.kind.eq(stages[-1].kind),
            reducer.repeat.eq(stages[-1].repeat),
            self.o.eq(reducer.o),
        ]
        with m.If(self.clear):
            for tag in (beat_1.tag, beat_2.tag, *(s.tag for s in stages)):
                m.d.sync += [tag.present.eq(0), tag.valid.eq(0)]
        return m

    def _context(self, m: Module) -> data.View:
        """Context of the beat which arrived one cycle ago."""
        m.submodules.contexts = memory = Memory(shape=CONTEXT_BITS, depth=self._contexts, init=[])
        write = memory.write_port(granularity=32)
        read = memory.read_port()
        m.d.comb += [
            read.addr.eq(self.i.tag.context),
            write.addr.eq(self.load_word),
            write.data.eq(self.load_data.replicate(CONTEXT_WORDS)),
            write.en.eq(self.load_context << self.load_element[: index_bits(CONTEXT_WORDS)]),
        ]
        return data.View(context_layout(), read.data)

    def _memory(self, m: Module, platform: object, context: data.View, beat: data.View) -> data.View:
        """Word of the private memory for the beat in cycle 1; arrives in cycle 3."""
        memory = RamBank(depth=self._words, width=32 * self._lanes, granule=32)
        add_cell(m, "memory", memory, platform)
        m.d.comb += [
            memory.r_en.eq(beat.tag.valid),
            memory.r_addr.eq(context.mem_base + Mux(context.mem_idx, beat.tag.idx, 0)),
            memory.w_mask.eq(self.load_memory << self.load_element[: index_bits(self._lanes)]),
            memory.w_addr.eq(self.load_word),
            memory.w_data.eq(self.load_data.replicate(self._lanes)),
        ]
        return data.View(vector_layout(self._lanes), memory.r_data)

    def _operand(
        self, m: Module, name: str, source: Signal, imm: Signal, beat: data.View, memory: data.View
    ) -> data.View:
        """Operand of every lane in cycle 3."""
        layout = vector_layout(self._lanes)
        held, operand = Signal(layout, name=f"{name}_held"), Signal(layout, name=f"{name}_operand")
        from_memory = Signal(name=f"{name}_from_memory")
        m.d.sync += from_memory.eq(source == Source.MEM)
        m.d.comb += operand.eq(Mux(from_memory, memory.as_value(), held.as_value()))
        with m.Switch(source):
            with m.Case(Source.X):
                m.d.sync += held.eq(beat.x)
            with m.Case(Source.Y):
                m.d.sync += held.eq(beat.y)
            with m.Case(Source.IMM):
                m.d.sync += held.eq(imm.replicate(self._lanes))
        return operand
