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
from headrace.dataflow.delay import BeatDelay
from headrace.dataflow.lane import Lane
from headrace.dataflow.lane_control import LaneControl
from headrace.dataflow.reduce import Reducer
from headrace.dataflow.row_sum import RowSum
from headrace.isa import CONTEXT_BITS, CONTEXT_WORDS, MemIndex, Reduce, Source
from headrace.isa.layout import context_layout
from headrace.memory.ram import RamBank

__all__ = ["Column"]


class Column(wiring.Component):
    """Cell: context memory, private memory, operand switch, lanes and reduction; with `float_sum` also FSUM.

    ::

        cycle 0   beat arrives, its context is read
        cycle 1   address of the private memory
        cycle 2   operands from x, y and the immediate
        cycle 3   operands complete, lanes start
        cycle 7   results, reduction over beats
        cycle 8   reduction over lanes (more cycles with more than 8 lanes, none with one)
        cycle 9   beat leaves; with `float_sum` when a row that ended with it would be summed

    A beat leaves `latency(lanes, float_sum)` cycles after it arrived; one beat a cycle, no stalls. A beat that asks for
    a word beyond the private memory, or for a table that ends there, is marked `bad` and carries the word's address as
    idx. `clear` empties the column; memories keep their contents.

    load_context, load_memory: write the 32-bit elements `load_mask` of word `load_word` of that memory; element e of
    the private memory takes load_data[e mod load_elements], e of the contexts load_data[e mod min(load_elements, 4)].
    Seen by beats that arrive two cycles later.
    """

    _RESULT = 3 + Lane.LATENCY  # cycle of the results

    def __init__(self, *, lanes: int, contexts: int, words: int, load_elements: int, float_sum: bool) -> None:
        self._lanes, self._contexts, self._words, self._load_elements = lanes, contexts, words, load_elements
        self._float_sum = float_sum
        beat = beat_layout(lanes=lanes, contexts=contexts)
        super().__init__(
            {
                "i": In(beat),
                "o": Out(beat),
                "clear": In(1),
                "load_context": In(1),
                "load_memory": In(1),
                "load_word": In(max(index_bits(contexts), index_bits(words))),
                "load_mask": In(max(CONTEXT_WORDS, lanes)),
                "load_data": In(data.ArrayLayout(32, load_elements)),
            }
        )

    @staticmethod
    def latency(lanes: int, float_sum: bool) -> int:
        """Cycles from the arrival of a beat to its leaving."""
        return Column._RESULT + (RowSum.LATENCY if float_sum else Reducer.latency(lanes))

    @property
    def cell_key(self) -> Hashable:
        return self._lanes, self._contexts, self._words, self._load_elements, self._float_sum

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = tag_layout(lanes=self._lanes, contexts=self._contexts)
        tags = [self.i.tag, *(Signal(layout, name=f"tag_{i}") for i in range(1, self._RESULT + 1))]
        m.d.sync += [after.eq(before) for before, after in pairwise(tags)]
        context = self._context(m)
        x_1, y_1 = (self._delayed(m, f"{name}_1", tags[0], self.i[name]) for name in "xy")
        memory = self._memory(m, platform, context, tags, (x_1, y_1))
        context_2 = Signal(context_layout(), reset_less=True)
        m.d.sync += context_2.eq(context)
        x, y = self._delayed(m, "x_2", tags[1], x_1), self._delayed(m, "y_2", tags[1], y_1)
        a = self._operand(m, "a", context_2.a, context_2.imm, tags[2].idx, (x, y), memory)
        b = self._operand(m, "b", context_2.b, context_2.imm, tags[2].idx, (x, y), memory)
        m.submodules.control = control = LaneControl()
        m.d.comb += control.en.eq(tags[3].valid)
        m.d.sync += [control.op.eq(context_2.op), control.shift.eq(context_2.sh)]

        reducer = Reducer(lanes=self._lanes, contexts=self._contexts, float_sum=self._float_sum)
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
        rest = self._rest(m, context_2, x, y, tags)
        names = ("kept", "to_y", "kind", "across", "row", "repeat")
        m.d.comb += [
            reducer.tag.eq(tags[-1]),
            *(getattr(reducer, name).eq(getattr(rest, name)) for name in names),
        ]
        if self._float_sum:
            self._sum(m, reducer)
        else:
            m.d.comb += self.o.eq(reducer.o)
        with m.If(self.clear):
            m.d.sync += [field.eq(0) for tag in tags[1:] for field in (tag.present, tag.valid)]
        return m

    def _sum(self, m: Module, reducer: Reducer) -> None:
        """Replace what the last beats of rows carry by the sum of the row; all beats wait as long as a sum takes."""
        beats = {"lanes": self._lanes, "contexts": self._contexts}
        delay = BeatDelay(**beats, cycles=RowSum.LATENCY - Reducer.latency(self._lanes))
        rows = RowSum(lanes=self._lanes)
        m.submodules.delay, m.submodules.rows = ResetInserter(self.clear)(delay), ResetInserter(self.clear)(rows)
        m.d.comb += [
            delay.i.eq(reducer.o),
            rows.valid.eq(reducer.sums),
            rows.queue.eq(reducer.tag.queue),
            rows.first.eq(reducer.first),
            rows.ends.eq(reducer.complete),
            rows.mark.eq(reducer.to_y),
            rows.lanes.eq(reducer.tag.lanes),
            rows.x.eq(reducer.result),
            self.o.eq(delay.o),
        ]
        value = rows.sum.value.replicate(self._lanes)
        with m.If(rows.sum.valid):
            with m.If(rows.sum.mark):
                m.d.comb += self.o.y.eq(value)
            with m.Else():
                m.d.comb += self.o.x.eq(value)

    def _delayed(self, m: Module, name: str, tag: data.View, value: data.View) -> data.View:
        """`value`, which belongs to `tag`, a cycle later."""
        register = Signal(value.shape(), name=name, reset_less=True)
        with m.If(tag.valid):
            m.d.sync += register.eq(value)
        return register

    def _rest(self, m: Module, context: data.View, x: data.View, y: data.View, tags: Sequence[data.View]) -> data.View:
        """What the reducer needs beside the result, from cycle 2 to its cycle."""
        rest: data.View = Signal(
            data.StructLayout(
                {"kept": vector_layout(self._lanes), "to_y": 1, "kind": Reduce, "across": 1, "row": 1, "repeat": 16}
            ),
            name="rest_2",
        )
        m.d.comb += [
            rest.kept.eq(Mux(context.dst, x.as_value(), y.as_value())),
            rest.to_y.eq(context.dst),
            rest.kind.eq(context.reduce),
            rest.across.eq(context.across),
            rest.row.eq(context.row),
            rest.repeat.eq(context.repeat),
        ]
        for cycle in range(2, self._RESULT):
            rest = self._delayed(m, f"rest_{cycle + 1}", tags[cycle], rest)
        return rest

    def _context(self, m: Module) -> data.View:
        """Context of the beat which arrived one cycle ago."""
        m.submodules.contexts = memory = Memory(shape=CONTEXT_BITS, depth=self._contexts, init=[])
        write = memory.write_port(granularity=32)
        read = memory.read_port()
        at_once = min(self._load_elements, CONTEXT_WORDS)
        m.d.comb += [
            read.addr.eq(self.i.tag.context),
            write.addr.eq(self.load_word),
            write.data.eq(self.load_data.as_value()[: 32 * at_once].replicate(CONTEXT_WORDS // at_once)),
            write.en.eq(Mux(self.load_context, self.load_mask[:CONTEXT_WORDS], 0)),
        ]
        return data.View(context_layout(), read.data)

    def _memory(
        self, m: Module, platform: object, context: data.View, tags: Sequence[data.View], streams: Sequence[data.View]
    ) -> list[Signal]:
        """Word of the private memory, or an element of a table for each lane, for the beat in cycle 1; arrives in
        cycle 3. Marks a beat with a bad address."""
        used, address = Signal(), Signal(IDX_BITS)
        tag = tags[1]
        m.d.comb += used.eq(tag.valid & ((context.a == Source.MEM) | (context.b == Source.MEM)))
        with m.Switch(context.mem_index):
            with m.Case(MemIndex.NONE):
                m.d.comb += address.eq(context.mem_base)
            with m.Case(MemIndex.IDX):
                m.d.comb += address.eq(context.mem_base + tag.idx)
            with m.Default():
                m.d.comb += address.eq(context.mem_base + 255)  # the end of the table
        with m.If(used & (address >= self._words) & ~tag.bad):
            m.d.sync += [tags[2].bad.eq(1), tags[2].idx.eq(address)]

        elements = []
        for lane in range(self._lanes):
            bank = RamBank(depth=self._words, width=32, granule=32)
            add_cell(m, f"memory_{lane}", bank, platform)
            with m.If(used), m.Switch(context.mem_index):
                for index, stream in zip((MemIndex.X, MemIndex.Y), streams):
                    with m.Case(index):
                        m.d.comb += bank.r_addr.eq(context.mem_base + stream[lane][0:8])
                with m.Default():
                    m.d.comb += bank.r_addr.eq(address)
            m.d.comb += [
                bank.r_en.eq(used),
                bank.w_mask.eq(self.load_memory & self.load_mask[lane]),
                bank.w_addr.eq(self.load_word),
                bank.w_data.eq(self.load_data[lane % self._load_elements]),
            ]
            elements.append(bank.r_data)
        return elements

    def _operand(
        self, m: Module, name: str, source: Signal, imm: Signal, idx: Signal, streams: Sequence[data.View],
        memory: Sequence[Signal],
    ) -> data.View:  # fmt: skip
        """Operand of every lane in cycle 3."""
        layout = vector_layout(self._lanes)
        held, operand = Signal(layout, name=f"{name}_held", reset_less=True), Signal(layout, name=f"{name}_operand")
        from_memory = Signal(name=f"{name}_from_memory", reset_less=True)
        m.d.sync += from_memory.eq(source == Source.MEM)
        m.d.comb += [operand[lane].eq(Mux(from_memory, memory[lane], held[lane])) for lane in range(self._lanes)]
        with m.Switch(source):
            with m.Case(Source.Y):
                m.d.sync += held.eq(streams[1])
            with m.Case(Source.MEM):
                pass
            with m.Case(Source.IMM):
                m.d.sync += held.eq(imm.replicate(self._lanes))
            with m.Case(Source.IDX):
                m.d.sync += [held[lane].eq(idx * self._lanes + lane) for lane in range(self._lanes)]
            with m.Default():
                m.d.sync += held.eq(streams[0])
        return operand
