"""Splits a contiguous piece of DDR into legal AXI bursts."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import ADDR_BITS

__all__ = ["BurstSplitter", "SegmentLayout", "burst_layout"]

SegmentLayout = data.StructLayout({"address": ADDR_BITS, "bytes": 24})


def burst_layout(*, axi_bytes: int, burst_beats: int) -> data.StructLayout:
    """A burst: address of its first beat, beats, first used byte of the first beat, used bytes, last of its segment."""
    return data.StructLayout(
        {
            "address": ADDR_BITS,
            "beats": 9,
            "offset": index_bits(axi_bytes),
            "bytes": range(axi_bytes * burst_beats + 1),
            "last": 1,
        }
    )


class BurstSplitter(wiring.Component):
    """Stream of segments (address, 1 or more bytes) to stream of bursts, one burst a cycle, no gap between segments.

    Bursts end at multiples of burst_beats beats, a divisor of 4 KiB, so that none crosses a page. The output is a
    function of registers. busy: a segment is held.
    """

    LATENCY = 1

    def __init__(self, *, axi_bytes: int, burst_beats: int) -> None:
        self._axi_bytes, self._size = axi_bytes, axi_bytes * burst_beats
        if axi_bytes < 2 or self._size & (self._size - 1) or self._size > 4096:
            raise ValueError(f"bursts of {burst_beats} beats of {axi_bytes} bytes are not legal")
        super().__init__(
            {
                "i": In(stream.Signature(SegmentLayout)),
                "o": Out(stream.Signature(burst_layout(axi_bytes=axi_bytes, burst_beats=burst_beats))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat_bits = index_bits(self._axi_bytes)
        address = Signal(ADDR_BITS)
        remaining = Signal(24)
        room = Signal(range(self._size + 1))  # bytes up to the end of the burst
        last = Signal()
        span = Signal(range(self._size + 2 * self._axi_bytes))
        burst = self.o.payload
        m.d.comb += [
            room.eq(self._size - address[: index_bits(self._size)]),
            last.eq(remaining <= room),
            span.eq(burst.offset + burst.bytes + self._axi_bytes - 1),
            self.o.valid.eq(self.busy),
            burst.address.eq((address >> beat_bits) << beat_bits),
            burst.offset.eq(address[:beat_bits]),
            burst.bytes.eq(Mux(last, remaining, room)),
            burst.beats.eq(span >> beat_bits),
            burst.last.eq(last),
            self.i.ready.eq(~self.busy | (self.o.ready & last)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(address + room), remaining.eq(remaining - room), self.busy.eq(~last)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [address.eq(self.i.p.address), remaining.eq(self.i.p.bytes), self.busy.eq(1)]
        return m
