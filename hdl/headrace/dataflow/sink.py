"""Exit of the column chain: where emitted beats go in the scratchpad."""

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.dataflow.beat import CHANNEL_BITS, IDX_BITS, PIXEL_BITS, Queue, beat_layout, vector_layout
from headrace.dataflow.elements import Conversion, element_bytes
from headrace.dataflow.source import hold, view_fields
from headrace.dataflow.stream_write import StreamWrite, sink_layout
from headrace.dataflow.walk import LoopNest, TileWalk
from headrace.dataflow.words import request_layout
from headrace.interfaces import ErrorLayout, SpadWrite, issued_layout
from headrace.isa import BY_NAME, Cause

__all__ = ["Sink"]

_COMMANDS = 4
"""Commands of a queue that may be under way between source and sink."""


class Sink(wiring.Component):
    """Walks the output loops of both queues' commands, converts and writes beats in the order of their arrival.

    epilogue, vector: commands in order of issue; each must be taken here before its first beat arrives. Beats of the
    last sub-pass arrive on `i`, of which at most `credits` may be outstanding; `returns` counts the credits given back
    this cycle. `done[queue]` pulses when a command's last write has been transferred. A beat marked `bad` raises RANGE
    and stays where it is.
    """

    def __init__(
        self,
        *,
        rows: int,
        cols: int,
        accs: int,
        lanes: int,
        halves: int,
        contexts: int,
        words: int,
        word_bytes: int,
        credits: int,
    ) -> None:
        self._tile = {"rows": rows, "cols": cols, "accs": accs, "lanes": lanes, "halves": halves}
        self._spad = {"banks": rows, "words": words, "word_bytes": word_bytes}
        self._lanes, self._credits = lanes, credits
        self._stored = data.StructLayout(
            {
                "x": vector_layout(lanes),
                "lanes": Shape.cast(range(lanes + 1)),
                "valid": 1,
                "last": 1,
                "bad": 1,
                "queue": 1,
                "idx": IDX_BITS,
            }
        )
        super().__init__(
            {
                "epilogue": In(stream.Signature(issued_layout(BY_NAME["EPILOGUE"]))),
                "vector": In(stream.Signature(issued_layout(BY_NAME["VECTOR"]))),
                "i": In(beat_layout(lanes=lanes, contexts=contexts)),
                "returns": Out(2),
                "port": Out(SpadWrite(**self._spad)),
                "done": Out(2),
                "error": Out(ErrorLayout),
                "error_queue": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=Shape.cast(self._stored).width, depth=self._credits + 2)
        m.submodules.write = write = StreamWrite(**self._spad, lanes=self._lanes)
        connect(m, write.port, flipped(self.port))
        tag, stored, keep, dropped = self.i.tag, Signal(self._stored), Signal(), Signal()
        m.d.comb += [
            keep.eq(tag.valid | tag.last | tag.bad | (tag.queue == Queue.EPILOGUE)),
            fifo.w_en.eq(tag.present & ~tag.wrap & keep),
            dropped.eq(tag.present & ~tag.wrap & ~keep),
            stored.x.eq(self.i.x),
            stored.lanes.eq(Mux(tag.valid, tag.lanes, 0)),
            *(stored[name].eq(tag[name]) for name in ("valid", "last", "bad", "queue", "idx")),
            fifo.w_data.eq(stored),
        ]

        head = data.View(self._stored, fifo.r_data)
        request = Signal(request_layout(lanes=self._lanes, user=sink_layout(self._lanes)))
        conversion = Signal(Conversion)
        takes = [Signal(name=f"take_{q.name.lower()}") for q in Queue]
        placed = [self._epilogue(m, takes[0], head), self._vector(m, takes[1], head)]
        full, move = Signal(), Signal()
        active = Mux(head.queue, placed[1][0], placed[0][0])
        m.d.comb += [
            move.eq(~full | write.i.ready),
            fifo.r_en.eq(move & active & ~head.bad),
            *(take.eq(fifo.r_en & fifo.r_rdy & (head.queue == q)) for q, take in enumerate(takes)),
            self.returns.eq((fifo.r_en & fifo.r_rdy) + dropped),
            write.i.valid.eq(full),
            write.i.payload.eq(request),
            write.conversion.eq(conversion),
            self.done.eq(write.done),
            self.error.eq(write.error),
            self.error_queue.eq(write.error_queue),
        ]
        with m.If(fifo.r_rdy & head.bad & active & ~write.error.valid):
            m.d.comb += [
                self.error.valid.eq(1),
                self.error.cause.eq(Cause.RANGE),
                self.error.index.eq(Mux(head.queue, placed[1][2], placed[0][2])),
                self.error.address.eq(head.idx),
                self.error_queue.eq(head.queue),
            ]
        with m.If(move):
            m.d.sync += [
                full.eq(fifo.r_rdy & active & ~head.bad),
                request.user.x.eq(head.x),
                request.user.queue.eq(head.queue),
            ]
            with m.Switch(head.queue):
                for q, (_, command, index, pixel, channel, final, inside) in enumerate(placed):
                    with m.Case(q):
                        view = view_fields(command, "out" if q == Queue.EPILOGUE else "o")
                        m.d.sync += [
                            *(getattr(request.at.view, name).eq(value) for name, value in view.items()),
                            request.lanes.eq(Mux(inside, head.lanes, 0)),
                            request.at.pixel.eq(pixel),
                            request.at.channel.eq(channel),
                            request.user.index.eq(index),
                            request.user.done.eq(head.last & final),
                            *(conversion[name].eq(command[name]) for name in ("zp", "lo", "hi")),
                        ]
        return m

    def _commands(self, m: Module, name: str, ends: Signal) -> tuple[Signal, data.View, Signal, Signal, data.View]:
        """Queue of commands and what `hold` says of the current one, followed by the command that comes next."""
        queue = getattr(self, name)
        layout = issued_layout(BY_NAME[name.upper()])
        m.submodules[f"{name}_commands"] = fifo = SyncFIFO(width=Shape.cast(layout).width, depth=_COMMANDS)
        oldest = stream.Signature(layout).create(path=(name,))
        m.d.comb += [
            fifo.w_en.eq(queue.valid),
            fifo.w_data.eq(queue.payload),
            queue.ready.eq(fifo.w_rdy),
            oldest.valid.eq(fifo.r_rdy),
            oldest.payload.eq(fifo.r_data),
            fifo.r_en.eq(oldest.ready),
        ]
        return *hold(m, oldest, BY_NAME[name.upper()], ends), oldest.payload.cmd

    def _epilogue(self, m: Module, take: Signal, head: data.View) -> tuple[Value, ...]:
        """(ready, command, index, pixel, channel byte, last tile, pixel is to be written) of the next epilogue beat."""
        m.submodules.tiles = walk = TileWalk(**self._tile)
        ends = Signal()
        active, command, index, load, _ = self._commands(m, "epilogue", ends)
        m.d.comb += [
            ends.eq(take & head.last & walk.final),
            walk.load.eq(load),
            walk.advance.eq(take),
            *(getattr(walk, name).eq(command[name]) for name in TileWalk.FIELDS),
        ]
        channel = element_bytes(walk.channel, command.out_type)
        return active, command, index, command.out_p0 + walk.pixel, command.out_c0 + channel, walk.final, walk.inside

    def _vector(self, m: Module, take: Signal, head: data.View) -> tuple[Value, ...]:
        """(ready, command, index, pixel, channel byte, 1, 1) of the next vector beat."""
        m.submodules.loops = walk = LoopNest(loops=3, widths=(PIXEL_BITS, CHANNEL_BITS))
        ends = Signal()
        active, command, index, load, fresh = self._commands(m, "vector", ends)
        m.d.comb += [
            ends.eq(take & head.last),
            walk.load.eq(load),
            walk.advance.eq(take & head.valid),
            walk.base_0.eq(fresh.o_p0),
            walk.base_1.eq(fresh.o_c0),
            *(walk.counts[i].eq(command[f"m{i}"]) for i in range(3)),
            *(walk.steps_0[i].eq(command[f"o_dp{i}"]) for i in range(3)),
            *(walk.steps_1[i].eq(command[f"o_dc{i}"]) for i in range(3)),
        ]
        return active, command, index, walk.position_0, walk.position_1, Value.cast(1), Value.cast(1)
