"""The loop nest which LOAD and STORE share: segments contiguous in DDR, and where each begins in the scratchpad."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS

__all__ = ["PIXEL_BITS", "SegmentWalker", "StepLayout", "WalkLayout"]

PIXEL_BITS = 40  # wide enough that no pixel number of a legal command wraps

WalkLayout = data.StructLayout(
    {
        "ddr": ADDR_BITS,
        "pixel": PIXEL_BITS,
        **{f"n{i}": 16 for i in (1, 2, 3)},
        **{f"s{i}": signed(32) for i in (1, 2, 3)},
        **{f"d{i}": signed(20) for i in (1, 2, 3)},
    }
)

StepLayout = data.StructLayout({"address": ADDR_BITS, "pixel": signed(PIXEL_BITS), "last": 1})


class SegmentWalker(wiring.Component):
    """Stream of walks to stream of steps, innermost loop first; one step a cycle.

    for i3 < n3: for i2 < n2: for i1 < n1:
        address = ddr + i1*s1 + i2*s2 + i3*s3 (mod 2^40);  pixel = pixel + i1*d1 + i2*d2 + i3*d3

    A walk is accepted when none is in progress (`busy`). The first step is there LATENCY cycles later.
    """

    LATENCY = 1

    def __init__(self) -> None:
        super().__init__(
            {"i": In(stream.Signature(WalkLayout)), "o": Out(stream.Signature(StepLayout)), "busy": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walk = Signal(WalkLayout)
        counts = [Signal(16, name=f"i{level}") for level in (1, 2, 3)]
        # Address and pixel of the current iteration of loop 1, and at the first iteration inside loops 2 and 3.
        addresses = [Signal(ADDR_BITS, name=f"address{level}") for level in (1, 2, 3)]
        pixels = [Signal(signed(PIXEL_BITS), name=f"pixel{level}") for level in (1, 2, 3)]
        ends = [Signal(name=f"end{level}") for level in (1, 2, 3)]
        for level, (count, end) in enumerate(zip(counts, ends), 1):
            m.d.comb += end.eq(count == walk[f"n{level}"] - 1)
        last = ends[0] & ends[1] & ends[2]
        m.d.comb += [
            self.o.valid.eq(self.busy),
            self.o.p.address.eq(addresses[0]),
            self.o.p.pixel.eq(pixels[0]),
            self.o.p.last.eq(last),
            self.i.ready.eq(~self.busy),
        ]
        with m.If(self.o.valid & self.o.ready):
            self._advance(m, walk, counts, addresses, pixels, ends)
            m.d.sync += self.busy.eq(~last)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [walk.eq(self.i.payload), self.busy.eq(1)]
            m.d.sync += [count.eq(0) for count in counts]
            m.d.sync += [address.eq(self.i.p.ddr) for address in addresses]
            m.d.sync += [pixel.eq(self.i.p.pixel) for pixel in pixels]
        return m

    def _advance(
        self,
        m: Module,
        walk: Any,
        counts: list[Signal],
        addresses: list[Signal],
        pixels: list[Signal],
        ends: list[Signal],
    ) -> None:
        """Step the innermost loop that has iterations left and restart those inside it; one adder each."""
        outer = Mux(ends[0], Mux(ends[1], 2, 1), 0)
        address = Signal(ADDR_BITS)
        pixel = Signal(signed(PIXEL_BITS))
        strides = Signal(data.ArrayLayout(signed(32), 3))
        moves = Signal(data.ArrayLayout(signed(20), 3))
        bases = Signal(data.ArrayLayout(ADDR_BITS, 3))
        places = Signal(data.ArrayLayout(signed(PIXEL_BITS), 3))
        for level in range(3):
            m.d.comb += [
                strides[level].eq(walk[f"s{level + 1}"]),
                moves[level].eq(walk[f"d{level + 1}"]),
                bases[level].eq(addresses[level]),
                places[level].eq(pixels[level]),
            ]
        m.d.comb += [address.eq(bases[outer] + strides[outer]), pixel.eq(places[outer] + moves[outer])]
        for level in range(3):
            with m.If(outer >= level):
                m.d.sync += [addresses[level].eq(address), pixels[level].eq(pixel)]
            with m.If(outer == level):
                m.d.sync += counts[level].eq(counts[level] + 1)
            with m.If(outer > level):
                m.d.sync += counts[level].eq(0)
