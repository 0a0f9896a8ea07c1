"""One column of the dataflow array."""

from collections.abc import Hashable, Sequence
from itertools import pairwise

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.dataflow.beat import IDX_BITS, beat_layout, tag_layout, vector_layout
from headrace.dataflow.lane import Lane
from headrace.dataflow.lane_control import LaneControl
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

    A beat leaves `LATENCY` cycles after it arrived; one beat a cycle, no stalls. A beat that asks for a word beyond the
    private memory is marked `bad` and carries the word's address as idx. `clear` empties the column; memories keep
    their contents.

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
        layout = tag_layout(lanes=self._lanes, contexts=self._contexts)
        tags = [self.i.tag, *(Signal(layout, name=f"tag_{i}") for i in range(1, self.LATENCY))]
        m.d.sync += [after.eq(before) for before, after in pairwise(tags)]
        operands = self._operands(m)
        context = self._context(m)
        memory = self._memory(m, platform, context, tags)
        context_2 = Signal(context_layout(), reset_less=True)
        m.d.sync += context_2.eq(context)
        x, y = (Signal(vector_layout(self._lanes), name=f"{n}_2", reset_less=True) for n in "xy")
        m.d.sync += [x.eq(operands[0]), y.eq(operands[1])]
        a = self._operand(m, "a", context_2.a, context_2.imm, (x, y), memory)
        b = self._operand(m, "b", context_2.b, context_2.imm, (x, y), memory)
        m.submodules.control = control = LaneControl()
        m.d.comb += control.en.eq(tags[3].valid)
        m.d.sync += [control.op.eq(context_2.op), control.shift.eq(context_2.sh)]

        reducer = Reducer(lanes=self._lanes, contexts=self._contexts)
        m.submodules.reducer = ResetInserter(self.clear)(reducer)
        for lane in range(self._lanes):
            unit = Lane()
            add_cell(m, f"lane_{lane}", unit, platform)
            connect(m, control.o, unit.control)
            m.d.comb += [
                unit.a.eq(a[lane]),
                unit.b.eq(b[lane]),
                reducer.result[lane].eq(unit.o),
            ]
        rest = self._rest(m, context_2, x, y)
        m.d.comb += [
            reducer.tag.eq(tags[-1]),
            *(getattr(reducer, name).eq(getattr(rest, name)) for name in ("kept", "to_y", "kind", "repeat")),
            self.o.eq(reducer.o),
        ]
        with m.If(self.clear):
            m.d.sync += [field.eq(0) for tag in tags[1:] for field in (tag.present, tag.valid)]
        return m

    def _operands(self, m: Module) -> list[data.View]:
        """x and y in cycle 1."""
        registered = []
        for name in "xy":
            value = Signal(vector_layout(self._lanes), name=f"{name}_1", reset_less=True)
            m.d.sync += value.eq(self.i[name])
            registered.append(value)
        return registered

    def _rest(self, m: Module, context: data.View, x: data.View, y: data.View) -> data.View:
        """What the reducer needs beside the result, from cycle 2 to its cycle."""
        layout = data.StructLayout({"kept": vector_layout(self._lanes), "to_y": 1, "kind": Reduce, "repeat": 16})
        stages = [Signal(layout, name=f"rest_{i}", reset_less=True) for i in range(3, self.LATENCY)]
        m.d.sync += [
            stages[0].kept.eq(Mux(context.dst, x.as_value(), y.as_value())),
            stages[0].to_y.eq(context.dst),
            stages[0].kind.eq(context.reduce),
            stages[0].repeat.eq(context.repeat),
            *(after.eq(before) for before, after in pairwise(stages)),
        ]
        return stages[-1]

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

    def _memory(self, m: Module, platform: object, context: data.View, tags: list[data.View]) -> data.View:
        """Word of the private memory for the beat in cycle 1; arrives in cycle 3. Marks a beat with a bad address."""
        memory = RamBank(depth=self._words, width=32 * self._lanes, granule=32)
        add_cell(m, "memory", memory, platform)
        address, used = Signal(IDX_BITS), Signal()
        tag = tags[1]
        m.d.comb += [
            used.eq(tag.valid & ((context.a == Source.MEM) | (context.b == Source.MEM))),
            address.eq(context.mem_base + Mux(context.mem_index, tag.idx, 0)),
            memory.r_en.eq(used),
            memory.r_addr.eq(address),
            memory.w_mask.eq(self.load_memory << self.load_element[: index_bits(self._lanes)]),
            memory.w_addr.eq(self.load_word),
            memory.w_data.eq(self.load_data.replicate(self._lanes)),
        ]
        with m.If(used & (address >= self._words) & ~tag.bad):
            m.d.sync += [tags[2].bad.eq(1), tags[2].idx.eq(address)]
        return data.View(vector_layout(self._lanes), memory.r_data)

    def _operand(
        self, m: Module, name: str, source: Signal, imm: Signal, streams: Sequence[data.View], memory: data.View
    ) -> data.View:
        """Operand of every lane in cycle 3."""
        layout = vector_layout(self._lanes)
        held, operand = Signal(layout, name=f"{name}_held", reset_less=True), Signal(layout, name=f"{name}_operand")
        from_memory = Signal(name=f"{name}_from_memory", reset_less=True)
        m.d.sync += from_memory.eq(source == Source.MEM)
        m.d.comb += operand.eq(Mux(from_memory, memory.as_value(), held.as_value()))
        with m.Switch(source):
            with m.Case(Source.X):
                m.d.sync += held.eq(streams[0])
            with m.Case(Source.Y):
                m.d.sync += held.eq(streams[1])
            with m.Case(Source.IMM):
                m.d.sync += held.eq(imm.replicate(self._lanes))
        return operand
