"""The dataflow array: two command queues, their sources, a chain of columns, one sink."""

from collections.abc import Sequence

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.cells import add_cell
from headrace.dataflow.column import Column
from headrace.dataflow.epilogue_source import EpilogueSource
from headrace.dataflow.issue import Issue
from headrace.dataflow.load import ColumnLoad
from headrace.dataflow.port_share import ReadShare
from headrace.dataflow.sink import Sink
from headrace.dataflow.vector_source import VectorSource
from headrace.interfaces import AccDrain, ColumnWrite, EnginePort, ErrorLayout, SpadRead, SpadWrite
from headrace.isa import BY_NAME, Cause

__all__ = ["DataflowArray"]


class DataflowArray(wiring.Component):
    """Executes EPILOGUE and VECTOR commands.

    ::

        accumulators --> epilogue source --+            +--> gasket --+
        spad y --------> residual          |            |             |
                                           +--> issue --+--> S columns --> sink --> spad
        spad x, y -----> vector source ----+

    One beat a cycle; passes and commands follow each other without draining the columns. A queue's next command is
    accepted when the source has requested the last beat of the previous one. `done` means that all writes of the
    command have been transferred. `beat`: a beat enters the columns. `clear` puts everything but memories back to the
    state after reset. halves: n tiles whose channels share a scratchpad word in the depthwise mode, at most 1 if the
    machine has none. load_elements: elements that `load` writes at once. sum_column: the column that has FSUM, if any.
    """

    def __init__(
        self,
        *,
        rows: int,
        cols: int,
        accs: int,
        columns: int,
        sum_column: int | None,
        lanes: int,
        halves: int,
        contexts: int,
        column_words: int,
        load_elements: int,
        gasket_beats: int,
        words: int,
        word_bytes: int,
    ) -> None:
        if columns < 1:
            raise ValueError("the dataflow array needs at least one column")
        self._columns, self._contexts, self._gasket_beats = columns, contexts, gasket_beats
        self._sum_column = sum_column
        self._spad = {"banks": rows, "words": words, "word_bytes": word_bytes}
        self._pads = {"words": words, "word_bytes": word_bytes}
        self._tile = {"rows": rows, "cols": cols, "accs": accs, "lanes": lanes, "halves": halves}
        self._load_elements = load_elements
        self._column = {"lanes": lanes, "contexts": contexts, "words": column_words}
        super().__init__(
            {
                "clear": In(1),
                "epilogue": In(EnginePort(BY_NAME["EPILOGUE"])),
                "vector": In(EnginePort(BY_NAME["VECTOR"])),
                "accumulators": Out(AccDrain(rows=rows, cols=cols, accs=accs)),
                "x": Out(SpadRead(**self._spad)),
                "y": Out(SpadRead(**self._spad)),
                "write": Out(SpadWrite(**self._spad)),
                "load": In(ColumnWrite(elements=load_elements)),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, contexts = self._column["lanes"], self._contexts
        credits = sum(Column.latency(lanes, number == self._sum_column) for number in range(self._columns)) + 8
        tile = EpilogueSource(**self._tile, contexts=contexts, **self._pads)
        vector = VectorSource(**self._spad, lanes=lanes, contexts=contexts)
        issue = Issue(lanes=lanes, contexts=contexts, gasket_beats=self._gasket_beats, credits=credits)
        sink = Sink(**self._tile, contexts=contexts, **self._pads, credits=credits)
        share = ReadShare(**self._spad)
        parts: dict[str, wiring.Component] = {"tile": tile, "streams": vector, "issue": issue, "sink": sink}
        for name, part in {**parts, "share": share}.items():
            m.submodules[name] = ResetInserter(self.clear)(part)
        connect(m, tile.drain, flipped(self.accumulators))
        connect(m, tile.y, share.clients_0)
        connect(m, vector.y, share.clients_1)
        connect(m, share.port, flipped(self.y))
        connect(m, vector.x, flipped(self.x))
        connect(m, sink.port, flipped(self.write))
        connect(m, tile.o, issue.epilogue)
        connect(m, vector.o, issue.vector)

        last = self._chain(m, platform, issue)
        m.d.comb += [
            issue.waiting.eq(tile.waiting),
            issue.returned.eq(last),
            issue.returns.eq(sink.returns),
            sink.i.eq(last),
            self.beat.eq(issue.o.tag.present),
        ]
        self._queue(m, "epilogue", 0, tile, sink, (issue, sink))
        self._queue(m, "vector", 1, vector, sink, (issue, sink))
        return m

    def _chain(self, m: Module, platform: object, issue: Issue) -> Signal:
        """Columns and their loading; returns what the last column emits."""
        m.submodules.load = load = ColumnLoad(columns=self._columns, **self._column, elements=self._load_elements)
        connect(m, flipped(self.load), load.i)
        beat = issue.o
        for number in range(self._columns):
            float_sum = number == self._sum_column
            column = Column(**self._column, load_elements=self._load_elements, float_sum=float_sum)
            add_cell(m, f"column_{number}", column, platform)
            m.d.comb += [
                column.i.eq(beat),
                column.clear.eq(self.clear),
                column.load_context.eq(load.contexts[number]),
                column.load_memory.eq(load.memories[number]),
                column.load_word.eq(load.word),
                column.load_mask.eq(load.mask),
                column.load_data.eq(load.data),
            ]
            beat = column.o
        return beat

    def _queue(
        self,
        m: Module,
        name: str,
        number: int,
        source: EpilogueSource | VectorSource,
        sink: Sink,
        shared: Sequence[Issue | Sink],
    ) -> None:
        """Command acceptance, completion and errors of one queue."""
        port = getattr(self, name)
        to_sink = getattr(sink, name)
        accepts, legal = Signal(name=f"{name}_accepts"), Signal(name=f"{name}_legal")
        command = port.issue.payload.cmd
        in_flight = Signal(8, name=f"{name}_in_flight")
        error, found = Signal(ErrorLayout, name=f"{name}_error"), Signal(ErrorLayout, name=f"{name}_found")
        m.d.comb += [
            legal.eq(command.ctx + command.wraps < self._contexts),
            accepts.eq(source.issue.ready & to_sink.ready & legal & ~port.halt & ~error.valid),
            port.issue.ready.eq(accepts),
            source.issue.valid.eq(port.issue.valid & accepts),
            to_sink.valid.eq(port.issue.valid & accepts),
            source.issue.payload.eq(port.issue.payload),
            to_sink.payload.eq(port.issue.payload),
            port.done.eq(sink.done[number]),
            port.busy.eq(in_flight != 0),
            port.error.eq(error),
            found.eq(source.error),
        ]
        for block in shared:
            with m.If(block.error.valid & (block.error_queue == number)):
                m.d.comb += found.eq(block.error)
        with m.If(port.issue.valid & ~legal & (in_flight == 0)):
            m.d.comb += [
                found.valid.eq(1),
                found.cause.eq(Cause.RANGE),
                found.index.eq(port.issue.payload.index),
                found.address.eq(command.ctx + command.wraps),
            ]
        m.d.sync += in_flight.eq(in_flight + (port.issue.valid & accepts) - port.done)
        with m.If(~error.valid & found.valid):
            m.d.sync += error.eq(found)
        with m.If(self.clear):
            m.d.sync += [in_flight.eq(0), error.eq(0)]
