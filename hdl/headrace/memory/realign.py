"""Moves bytes between units of different widths and alignments: beats to words, words to beats."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

__all__ = ["Realigner"]


class Realigner(wiring.Component):
    """A queue of bytes. `i` appends bytes offset .. offset+count-1 of a unit of `in_bytes`; `chunk` asks for the next
    `count` bytes at byte `offset` of a unit of `out_bytes`, which `o` delivers with a byte mask and the chunk's `tag`.

    Bytes come out in the order in which they went in, whatever the boundaries on either side, so segments need no gap.
    One input and one output unit a cycle; other bytes of `o.data` are not defined. LATENCY from `i` to `o` if `chunk`
    waits. Nothing is left inside when as many bytes were asked for as were put in.

        i --> shift down by offset --> | bytes in order |--> shift up by offset --> o
    """

    LATENCY = 3

    def __init__(self, *, in_bytes: int, out_bytes: int, tag: Any) -> None:
        self._in, self._out, self._tag = in_bytes, out_bytes, tag
        super().__init__(
            {
                "i": In(stream.Signature(self._unit(in_bytes, {"data": 8 * in_bytes}))),
                "chunk": In(stream.Signature(self._unit(out_bytes, {"tag": tag}))),
                "o": Out(stream.Signature(data.StructLayout({"data": 8 * out_bytes, "mask": out_bytes, "tag": tag}))),
            }
        )

    @staticmethod
    def _unit(size: int, more: dict[str, Any]) -> data.StructLayout:
        return data.StructLayout({"offset": index_bits(size), "count": range(size + 1), **more})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        capacity = self._in + self._out
        part = Signal(8 * self._in)  # the last unit received, its bytes moved to the bottom; zero above them
        part_count = Signal(range(self._in + 1))  # 0: none
        queue = Signal(8 * capacity)  # bytes in order, zero above them
        count = Signal(range(capacity + 1))
        rest = Signal(8 * capacity)
        rest_count = Signal(range(capacity + 1))
        take = Signal()
        append = Signal()
        used = Signal(self._in)
        m.d.comb += [
            used.eq(self._lowest(self.i.p.count, self._in)),
            take.eq(self.chunk.valid & (count >= self.chunk.p.count) & (~self.o.valid | self.o.ready)),
            self.chunk.ready.eq(take),
            rest.eq(Mux(take, queue >> (self.chunk.p.count << 3), queue)),
            rest_count.eq(Mux(take, count - self.chunk.p.count, count)),
            append.eq(rest_count <= self._out),
            self.i.ready.eq((part_count == 0) | append),
        ]
        m.d.sync += [queue.eq(rest), count.eq(rest_count)]
        with m.If(append):
            m.d.sync += [
                queue.eq(rest | (part << (rest_count << 3))),
                count.eq(rest_count + part_count),
                part.eq(0),
                part_count.eq(0),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                part.eq((self.i.p.data >> (self.i.p.offset << 3)) & Cat(bit.replicate(8) for bit in used)),
                part_count.eq(self.i.p.count),
            ]
        self._deliver(m, take, queue)
        return m

    def _deliver(self, m: Module, take: Signal, queue: Signal) -> None:
        window = Signal(8 * self._out)
        mask = Signal(self._out)
        m.d.comb += [
            window.eq(queue[: 8 * self._out] << (self.chunk.p.offset << 3)),
            mask.eq(self._lowest(self.chunk.p.count, self._out) << self.chunk.p.offset),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(take):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.data.eq(window),
                self.o.p.mask.eq(mask),
                self.o.p.tag.eq(self.chunk.p.tag),
            ]

    def _lowest(self, count: Value, size: int) -> Value:
        """`size` bits, the lowest `count` of them set."""
        return Cat(count > i for i in range(size))
