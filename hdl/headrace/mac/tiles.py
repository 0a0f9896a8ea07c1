"""The two accumulator buffers: which is computed, which are drained."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["TileBuffers"]


class TileBuffers(wiring.Component):
    """Hands accumulator buffers to the array and finished tiles to the drain, in turns.

    `start` (allowed while `free`) takes a buffer, whose number is `buffer` from that cycle on; `finish` says that its
    tile of `t_used` row groups is complete. `tile` offers finished tiles, oldest first; its transfer frees the buffer.
    """

    def __init__(self, *, accs: int) -> None:
        super().__init__(
            {
                "start": In(1),
                "free": Out(1),
                "buffer": Out(1),
                "finish": In(1),
                "t_used": In(range(accs + 1)),
                "tile": Out(stream.Signature(data.StructLayout({"buffer": 1, "t_used": range(accs + 1)}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken, finished = Signal(2), Signal(2)  # buffers in use, and those of them that are complete
        computed, oldest, newest = Signal(init=1), Signal(), Signal()
        t_used = [Signal(self.t_used.shape(), name=f"t_used_{i}") for i in range(2)]
        freed = Signal()
        m.d.comb += [
            self.free.eq(taken != 2),
            self.buffer.eq(computed ^ self.start),
            self.tile.valid.eq(finished != 0),
            self.tile.payload.buffer.eq(oldest),
            self.tile.payload.t_used.eq(Mux(oldest, t_used[1], t_used[0])),
            freed.eq(self.tile.valid & self.tile.ready),
        ]
        m.d.sync += [
            taken.eq(taken + self.start - freed),
            finished.eq(finished + self.finish - freed),
            computed.eq(computed ^ self.start),
            newest.eq(newest ^ self.finish),
            oldest.eq(oldest ^ freed),
        ]
        for i in range(2):
            with m.If(self.finish & (newest == i)):
                m.d.sync += t_used[i].eq(self.t_used)
        return m
