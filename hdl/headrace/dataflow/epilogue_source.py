"""Beats of EPILOGUE commands."""

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.dataflow.accumulator_read import AccumulatorRead
from headrace.dataflow.beat import operands_layout
from headrace.dataflow.elements import element_bytes
from headrace.dataflow.source import AHEAD, fork, hold, join, meta_layout, view_fields
from headrace.dataflow.stream_read import StreamRead
from headrace.dataflow.walk import TileWalk
from headrace.interfaces import AccDrain, ErrorLayout, SpadRead, issued_layout
from headrace.isa import BY_NAME

__all__ = ["EpilogueSource"]


class EpilogueSource(wiring.Component):
    """Beats of EPILOGUE commands: accumulators as x, the residual stream as y.

    `issue` takes a command while the previous one's last beat is requested. One pass a tile; `boundary` is its last
    beat. A row are the beats of a pixel (and half). `waiting`: a tile is there.
    """

    def __init__(
        self, *, rows: int, cols: int, accs: int, lanes: int, halves: int, contexts: int, words: int, word_bytes: int
    ) -> None:
        self._tile = {"rows": rows, "cols": cols, "accs": accs, "lanes": lanes}
        self._spad = {"banks": rows, "words": words, "word_bytes": word_bytes}
        self._lanes, self._halves, self._contexts = lanes, halves, contexts
        super().__init__(
            {
                "issue": In(stream.Signature(issued_layout(BY_NAME["EPILOGUE"]))),
                "drain": Out(AccDrain(rows=rows, cols=cols, accs=accs)),
                "y": Out(SpadRead(**self._spad)),
                "o": Out(stream.Signature(operands_layout(lanes=lanes, contexts=contexts))),
                "waiting": Out(1),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = meta_layout(lanes=self._lanes, contexts=self._contexts)
        m.submodules.walk = walk = TileWalk(**self._tile, halves=self._halves)
        m.submodules.accumulators = accumulators = AccumulatorRead(**self._tile)
        m.submodules.residual = residual = StreamRead(**self._spad, lanes=self._lanes)
        m.submodules.meta = meta = SyncFIFO(width=Shape.cast(layout).width, depth=AHEAD)
        connect(m, accumulators.drain, flipped(self.drain))
        connect(m, residual.port, flipped(self.y))

        advance, ends = Signal(), Signal()
        active, command, index, load = hold(m, self.issue, BY_NAME["EPILOGUE"], ends)
        m.d.comb += [
            ends.eq(advance & walk.last & walk.final),
            walk.load.eq(load),
            walk.advance.eq(advance),
            *(getattr(walk, name).eq(command[name]) for name in TileWalk.FIELDS),
        ]

        beat = Signal(layout)
        request, at = accumulators.i.payload, residual.i.payload.at
        channel = Mux(command.res_row, 0, element_bytes(walk.channel, command.res_type))
        m.d.comb += [
            beat.idx.eq(command.idx_base + walk.idx),
            beat.lanes.eq(walk.lanes),
            beat.last.eq(walk.last),
            beat.ends.eq(walk.ends),
            beat.boundary.eq(walk.last),
            beat.context.eq(command.ctx),
            beat.wraps.eq(command.wraps),
            beat.index.eq(index),
            beat.use_y.eq(command.res_enable),
            meta.w_data.eq(beat),
            request.index.eq(index),
            *(getattr(request, name).eq(getattr(walk, name)) for name, _ in request.shape() if name != "index"),
            *(getattr(at.view, name).eq(value) for name, value in view_fields(command, "res").items()),
            at.pixel.eq(command.res_p0 + walk.pixel),
            at.channel.eq(command.res_c0 + channel),
            residual.i.payload.lanes.eq(walk.lanes),
            residual.i.payload.user.eq(index),
        ]
        branches = [
            (meta.w_en, meta.w_rdy, Value.cast(1)),
            (accumulators.i.valid, accumulators.i.ready, Value.cast(1)),
            (residual.i.valid, residual.i.ready, command.res_enable),
        ]
        m.d.comb += advance.eq(fork(m, active, branches))
        join(m, self.o, meta, layout, accumulators.o, residual.o)
        m.d.comb += self.waiting.eq(meta.r_rdy & self.drain.tile.valid)
        errors = [accumulators.error, residual.error]
        m.d.comb += self.error.eq(Mux(errors[0].valid, errors[0].as_value(), errors[1].as_value()))
        return m
