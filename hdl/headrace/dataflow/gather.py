"""Requests of a stream whose pixels another stream moves."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from headrace.dataflow.source import AHEAD
from headrace.dataflow.stream_read import StreamRead
from headrace.dataflow.words import request_layout
from headrace.isa.commands import GATHER_BITS

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Adds the low `bits` bits of an index to the pixel of a request; with 0 of them a request takes no index.

    Indices arrive in the order of the requests that take one, when they are known: while `index_valid`, at most
    `StreamRead.BEATS` ahead of their request. A request without one passes in the same cycle unless one with an index
    waits before it.
    """

    def __init__(self, *, lanes: int) -> None:
        self._request = request_layout(lanes=lanes, user=16)
        self._layout = data.StructLayout({"request": self._request, "bits": range(GATHER_BITS + 1)})
        super().__init__(
            {
                "i": In(stream.Signature(self._layout)),
                "index": In(GATHER_BITS),
                "index_valid": In(1),
                "o": Out(stream.Signature(self._request)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = SyncFIFO(width=Shape.cast(self._layout).width, depth=AHEAD)
        m.submodules.indices = indices = SyncFIFO(width=GATHER_BITS, depth=StreamRead.BEATS)
        head, direct, known = data.View(self._layout, queue.r_data), Signal(), Signal()
        mask = Signal(GATHER_BITS)
        m.d.comb += [
            direct.eq((self.i.payload.bits == 0) & ~queue.r_rdy),
            self.i.ready.eq(Mux(direct, self.o.ready, queue.w_rdy)),
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid & ~direct),
            indices.w_data.eq(self.index),
            indices.w_en.eq(self.index_valid),
            known.eq((head.bits == 0) | indices.r_rdy),
            self.o.valid.eq(Mux(direct, self.i.valid, queue.r_rdy & known)),
            self.o.payload.eq(Mux(direct, self.i.payload.request.as_value(), head.request.as_value())),
            queue.r_en.eq(~direct & known & self.o.ready),
            indices.r_en.eq(queue.r_rdy & queue.r_en & (head.bits != 0)),
            mask.eq((1 << head.bits) - 1),
        ]
        with m.If(~direct & (head.bits != 0)):
            m.d.comb += self.o.payload.at.pixel.eq(head.request.at.pixel + (indices.r_data & mask))
        return m
