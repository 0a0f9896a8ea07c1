"""Reads the scratchpad words of a walk, one a cycle."""

from itertools import pairwise

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import SPAD_LATENCY, SpadRead

from .fifo import StreamFifo
from .words import word_layout

__all__ = ["WordGather", "part_layout"]


def part_layout(*, word_bytes: int) -> data.StructLayout:
    """A word of which bytes offset .. offset+count-1 count."""
    return data.StructLayout({"offset": index_bits(word_bytes), "count": range(word_bytes + 1), "data": 8 * word_bytes})


class WordGather(wiring.Component):
    """Stream of word addresses to stream of their contents, in order, one a cycle.

    A word is requested when there is room for it, so the scratchpad port is never waited on by data in flight. The
    content is there LATENCY cycles after its address. Fields of `i` other than bank, addr, offset, count are ignored.
    """

    LATENCY = SPAD_LATENCY + 1

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        self._part = part_layout(word_bytes=word_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(banks=banks, words=words, word_bytes=word_bytes))),
                "spad": Out(SpadRead(banks=banks, words=words, word_bytes=word_bytes)),
                "o": Out(stream.Signature(self._part)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.LATENCY + 2
        m.submodules.queue = queue = StreamFifo(shape=self._part, depth=depth)
        credit = Signal(range(depth + 1), init=depth)
        request = self.spad.req
        moved = request.valid & request.ready
        arriving = [
            Signal(data.StructLayout({"valid": 1, "part": self._part}), name=f"in_{i}") for i in range(SPAD_LATENCY)
        ]
        m.d.comb += [
            request.valid.eq(self.i.valid & (credit != 0)),
            *(request.p.bank.eq(self.i.p.bank), request.p.addr.eq(self.i.p.addr)),
            self.i.ready.eq(request.ready & (credit != 0)),
            queue.i.valid.eq(arriving[-1].valid),
            *(queue.i.p.offset.eq(arriving[-1].part.offset), queue.i.p.count.eq(arriving[-1].part.count)),
            queue.i.p.data.eq(self.spad.data),
            *(self.o.valid.eq(queue.o.valid), self.o.payload.eq(queue.o.payload), queue.o.ready.eq(self.o.ready)),
        ]
        m.d.sync += [
            credit.eq(credit - moved + (queue.o.valid & queue.o.ready)),
            arriving[0].valid.eq(moved),
            *(arriving[0].part.offset.eq(self.i.p.offset), arriving[0].part.count.eq(self.i.p.count)),
            *(later.eq(earlier) for earlier, later in pairwise(arriving)),
        ]
        return m
