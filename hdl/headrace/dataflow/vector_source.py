"""Beats of VECTOR commands."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.dataflow.beat import CHANNEL_BITS, IDX_BITS, PIXEL_BITS, operands_layout
from headrace.dataflow.gather import Gather
from headrace.dataflow.source import AHEAD, fork, hold, join, meta_layout, view_fields
from headrace.dataflow.stream_read import StreamRead
from headrace.dataflow.walk import LoopNest
from headrace.dataflow.words import request_layout
from headrace.interfaces import ErrorLayout, SpadRead, issued_layout
from headrace.isa import BY_NAME

__all__ = ["CHUNK", "VectorSource"]

CHUNK = 64
"""Beats of a VECTOR pass without wraps after which an epilogue pass may run. With both streams in one sub-bank they
take twice as many cycles, still less than a tile of 32 rows takes to compute."""


class VectorSource(wiring.Component):
    """Beats of VECTOR commands: scratchpad streams as x and y; lane 0 of y may move the pixel of x.

    `issue` takes a command while the previous one's last beat is requested. `boundary` is the last beat of a command
    and, without wraps, every `CHUNK`-th. A row are the beats of loops 0 .. idx_loop.
    """

    def __init__(self, *, banks: int, lanes: int, contexts: int, words: int, word_bytes: int) -> None:
        self._spad = {"banks": banks, "words": words, "word_bytes": word_bytes}
        self._lanes, self._contexts = lanes, contexts
        super().__init__(
            {
                "issue": In(stream.Signature(issued_layout(BY_NAME["VECTOR"]))),
                "x": Out(SpadRead(**self._spad)),
                "y": Out(SpadRead(**self._spad)),
                "o": Out(stream.Signature(operands_layout(lanes=lanes, contexts=contexts))),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = meta_layout(lanes=self._lanes, contexts=self._contexts)
        m.submodules.walk = walk = LoopNest(loops=4, widths=(*2 * (PIXEL_BITS, CHANNEL_BITS), IDX_BITS - 1))
        m.submodules.meta = meta = SyncFIFO(width=Shape.cast(layout).width, depth=AHEAD)
        advance, ends = Signal(), Signal()
        active, command, index, load = hold(m, self.issue, BY_NAME["VECTOR"], ends)
        m.d.comb += [
            ends.eq(advance & walk.last),
            walk.load.eq(load),
            walk.advance.eq(advance),
            *(walk.counts[i].eq(command[f"n{i}"]) for i in range(4)),
        ]
        number = Signal(range(CHUNK))
        with m.If(load):
            m.d.sync += number.eq(0)
        with m.Elif(advance):
            m.d.sync += number.eq(number + 1)

        beat = Signal(layout)
        self._describe(m, beat, command, walk)
        m.d.comb += [
            beat.boundary.eq(walk.last | ((command.wraps == 0) & (number == CHUNK - 1))),
            beat.index.eq(index),
            meta.w_data.eq(beat),
        ]
        x, y = (self._reader(m, v) for v in range(2))
        requests = [self._request(m, v, command, walk, beat) for v in range(2)]
        wanted = (Value.cast(1), command.y_enable)
        m.submodules.gather = gather = Gather(lanes=self._lanes)
        gathers = Mux(command.y_enable, command.x_gather, 0)
        m.d.comb += [
            gather.i.payload.request.eq(requests[0]),
            gather.i.payload.bits.eq(gathers),
            gather.index.eq(y.arrives.lane_0),
            gather.index_valid.eq(y.arrives.valid & y.arrives.marked),
            x.i.valid.eq(gather.o.valid),
            x.i.payload.eq(gather.o.payload),  # not marked
            gather.o.ready.eq(x.i.ready),
            y.i.payload.eq(Cat(requests[1], gathers != 0)),
        ]
        branches = [(i.valid, i.ready, wants) for i, wants in zip((gather.i, y.i), wanted)]
        m.d.comb += advance.eq(fork(m, active, [(meta.w_en, meta.w_rdy, Value.cast(1)), *branches]))
        join(m, self.o, meta, layout, x.o, y.o)
        m.d.comb += self.error.eq(Mux(x.error.valid, x.error.as_value(), y.error.as_value()))
        return m

    def _describe(self, m: Module, beat: Any, command: Any, walk: LoopNest) -> None:
        """Index, valid lanes and contexts of the walker's beat."""
        block, left = Signal(16), Signal(signed(22))
        m.d.comb += [
            block.eq(walk.counters[command.idx_loop]),
            left.eq(command.channels - block * self._lanes),
            walk.base_4.eq(self.issue.payload.cmd.idx_base),
            walk.steps_4[0].eq(command.idx_loop == 0),
            *(
                walk.steps_4[i].eq(Mux(command.idx_loop == i, 1, Mux(command.idx_loop == i - 1, command.idx_step, 0)))
                for i in range(1, 4)
            ),
            beat.idx.eq(walk.position_4.as_unsigned()),
            beat.lanes.eq(Mux(left < 0, 0, left)),
            beat.last.eq(walk.last),
            beat.ends.eq(walk.ends.bit_select(command.idx_loop, 1)),
            beat.context.eq(command.ctx),
            beat.wraps.eq(command.wraps),
            beat.use_y.eq(command.y_enable),
        ]
        with m.If((command.channels == 0) | (left >= self._lanes)):
            m.d.comb += beat.lanes.eq(self._lanes)

    def _reader(self, m: Module, number: int) -> StreamRead:
        """The reader of stream 0 (x) or 1 (y)."""
        name = "xy"[number]
        m.submodules[name] = reader = StreamRead(**self._spad, lanes=self._lanes)
        connect(m, reader.port, flipped(getattr(self, name)))
        return reader

    def _request(self, m: Module, number: int, command: Any, walk: LoopNest, beat: Any) -> Any:
        """What stream 0 (x) or 1 (y) reads at the walker's position."""
        name = "xy"[number]
        request = Signal(request_layout(lanes=self._lanes, user=16), name=f"{name}_request")
        for coordinate, kind, value in ((2 * number, "p", request.at.pixel), (2 * number + 1, "c", request.at.channel)):
            steps = getattr(walk, f"steps_{coordinate}")
            m.d.comb += [
                getattr(walk, f"base_{coordinate}").eq(self.issue.payload.cmd[f"{name}_{kind}0"]),
                *(steps[i].eq(command[f"{name}_d{kind}{i}"]) for i in range(4)),
                value.eq(getattr(walk, f"position_{coordinate}")),
            ]
        m.d.comb += [
            *(getattr(request.at.view, field).eq(value) for field, value in view_fields(command, name).items()),
            request.lanes.eq(beat.lanes),
            request.user.eq(beat.index),
        ]
        return request
