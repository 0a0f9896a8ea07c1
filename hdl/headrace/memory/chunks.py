"""Cuts a run of bytes at the boundaries of words or beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

__all__ = ["Chunker", "chunk_layout", "run_layout"]


def run_layout(*, unit: int, size_bits: int) -> data.StructLayout:
    """`size` bytes, of which the first is byte `offset` of a unit; `last`: the user's mark."""
    return data.StructLayout({"offset": index_bits(unit), "size": size_bits, "last": 1})


def chunk_layout(*, unit: int) -> data.StructLayout:
    """Bytes offset .. offset+count-1 of a unit; end: last chunk of its run; last: that, and the run was marked."""
    return data.StructLayout({"offset": index_bits(unit), "count": range(unit + 1), "end": 1, "last": 1})


class Chunker(wiring.Component):
    """Stream of runs (1 or more bytes) to stream of chunks, none of which crosses a multiple of `unit` bytes.

    One chunk a cycle and no gap between runs; the output is a function of registers. busy: a run is held.
    """

    LATENCY = 1

    def __init__(self, *, unit: int, size_bits: int) -> None:
        self._unit, self._size_bits = unit, size_bits
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(unit=unit, size_bits=size_bits))),
                "o": Out(stream.Signature(chunk_layout(unit=unit))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offset = Signal(index_bits(self._unit))
        remaining = Signal(self._size_bits)
        marked = Signal()
        room = Signal(range(self._unit + 1))
        end = Signal()
        m.d.comb += [
            room.eq(self._unit - offset),
            end.eq(remaining <= room),
            self.o.valid.eq(self.busy),
            self.o.p.offset.eq(offset),
            self.o.p.count.eq(Mux(end, remaining, room)),
            self.o.p.end.eq(end),
            self.o.p.last.eq(end & marked),
            self.i.ready.eq(~self.busy | (self.o.ready & end)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [offset.eq(0), remaining.eq(remaining - room), self.busy.eq(~end)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                offset.eq(self.i.p.offset),
                remaining.eq(self.i.p.size),
                marked.eq(self.i.p.last),
                self.busy.eq(1),
            ]
        return m
