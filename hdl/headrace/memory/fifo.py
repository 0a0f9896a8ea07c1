"""A queue with typed streams on both sides."""

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

__all__ = ["StreamFifo"]


class StreamFifo(wiring.Component):
    """Queue of `depth` items of `shape`.

    Plain: an item is at the output in the cycle after it entered; the memory reads asynchronously (LUT memory).
    buffered: two cycles, and a memory with a registered read (block memory), for deep queues.
    """

    def __init__(self, *, shape: Any, depth: int, buffered: bool = False) -> None:
        self._depth, self._buffered = depth, buffered
        super().__init__(
            {"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "level": Out(range(depth + 1))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind = SyncFIFOBuffered if self._buffered else SyncFIFO
        m.submodules.fifo = fifo = kind(width=len(Value.cast(self.i.payload)), depth=self._depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            Value.cast(self.o.payload).eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.level.eq(fifo.level),
        ]
        return m
