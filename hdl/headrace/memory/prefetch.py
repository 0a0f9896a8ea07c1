"""Reads the segments of a loop nest from DDR ahead of their use."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import BurstRead

from .bursts import BurstSplitter
from .fifo import StreamFifo
from .walk import PIXEL_BITS, SegmentWalker, WalkLayout

__all__ = ["PrefetchLayout", "Prefetcher", "segment_layout"]

PrefetchLayout = data.StructLayout({"walk": WalkLayout, "n0": 24, "read": 1, "index": 16})


def segment_layout(*, axi_bytes: int) -> data.StructLayout:
    """A segment on its way: first used byte of its first beat, first pixel, last of its walk."""
    return data.StructLayout({"offset": index_bits(axi_bytes), "pixel": signed(PIXEL_BITS), "last": 1})


class Prefetcher(wiring.Component):
    """Stream of walks, segments of n0 bytes, to a stream of segments and a stream of the beats that hold them.

    Every segment begins with a beat of its own. With read = 0 segments come without beats. Bursts are requested while
    their beats have room among the `data_beats` of the queue, so beats are never refused. A walk is accepted when all
    bursts of the previous one are split.
    """

    def __init__(self, *, axi_bytes: int, burst_beats: int, data_beats: int, segments: int) -> None:
        if data_beats < burst_beats:
            raise ValueError(f"a queue of {data_beats} beats cannot hold a burst of {burst_beats}")
        self._axi_bytes, self._burst_beats = axi_bytes, burst_beats
        self._data_beats, self._segments = data_beats, segments
        super().__init__(
            {
                "i": In(stream.Signature(PrefetchLayout)),
                "bus": Out(BurstRead(axi_bytes=axi_bytes)),
                "segments": Out(stream.Signature(segment_layout(axi_bytes=axi_bytes))),
                "beats": Out(stream.Signature(8 * axi_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = SegmentWalker()
        m.submodules.splitter = splitter = BurstSplitter(axi_bytes=self._axi_bytes, burst_beats=self._burst_beats)
        m.submodules.queue = queue = StreamFifo(shape=segment_layout(axi_bytes=self._axi_bytes), depth=self._segments)
        job = Signal(PrefetchLayout)
        step = walker.o
        room = splitter.i.ready | ~job.read
        m.d.comb += [
            walker.i.valid.eq(self.i.valid & ~splitter.busy),
            walker.i.payload.eq(self.i.p.walk),
            self.i.ready.eq(walker.i.ready & ~splitter.busy),
            step.ready.eq(queue.i.ready & room),
            splitter.i.valid.eq(step.valid & queue.i.ready & job.read),
            splitter.i.p.address.eq(step.p.address),
            splitter.i.p.bytes.eq(job.n0),
            queue.i.valid.eq(step.valid & room),
            queue.i.p.offset.eq(step.p.address[: (self._axi_bytes - 1).bit_length()]),
            queue.i.p.pixel.eq(step.p.pixel),
            queue.i.p.last.eq(step.p.last),
            self.segments.valid.eq(queue.o.valid),
            self.segments.payload.eq(queue.o.payload),
            queue.o.ready.eq(self.segments.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += job.eq(self.i.payload)
        self._request(m, splitter, job.index)
        return m

    def _request(self, m: Module, splitter: BurstSplitter, index: Signal) -> None:
        """Registered requests, limited by credit for their beats."""
        m.submodules.data = queue = StreamFifo(shape=8 * self._axi_bytes, depth=self._data_beats, buffered=True)
        credit = Signal(range(self._data_beats + 1), init=self._data_beats)
        burst, request = splitter.o, self.bus.req
        send = Signal()
        taken = self.beats.valid & self.beats.ready
        m.d.comb += [
            send.eq(burst.valid & (credit >= burst.p.beats) & (~request.valid | request.ready)),
            burst.ready.eq(send),
            queue.i.valid.eq(self.bus.beat_valid),
            queue.i.payload.eq(self.bus.beat_data),
            self.beats.valid.eq(queue.o.valid),
            self.beats.payload.eq(queue.o.payload),
            queue.o.ready.eq(self.beats.ready),
        ]
        m.d.sync += credit.eq(credit + taken - Mux(send, burst.p.beats, 0))
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(send):
            m.d.sync += [
                request.valid.eq(1),
                request.p.address.eq(burst.p.address),
                request.p.beats.eq(burst.p.beats),
                request.p.index.eq(index),
            ]
