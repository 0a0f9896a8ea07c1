"""From segments of a tensor view to the scratchpad words they occupy."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

from .chunks import Chunker
from .view import ViewAddress
from .walk import PIXEL_BITS

__all__ = ["PlaceLayout", "ViewLayout", "WordWalk", "word_layout"]

ViewLayout = data.StructLayout({"base": 16, "plane": 16, "shift": 2, "c0": 16, "n0": 24, "pix_bytes": 16})
PlaceLayout = data.StructLayout({"pixel": signed(PIXEL_BITS), "last": 1})
PLANE_BITS = 24


def word_layout(*, banks: int, words: int, word_bytes: int) -> data.StructLayout:
    """A part of a scratchpad word: bytes offset .. offset+count-1; last: the final one of a marked segment.

    outside: the pixel or the address does not exist; `word` is the address in full.
    """
    return data.StructLayout(
        {
            "bank": index_bits(banks),
            "addr": index_bits(words),
            "word": 26,
            "outside": 1,
            "offset": index_bits(word_bytes),
            "count": range(word_bytes + 1),
            "last": 1,
        }
    )


def _saturated(value: Value) -> Value:
    """An unsigned sum of words as a plane offset; one that does not fit stays beyond every bank."""
    return Mux(value[PLANE_BITS:].any(), (1 << PLANE_BITS) - 1, value[:PLANE_BITS])


class WordWalk(wiring.Component):
    """Stream of segments (first pixel, mark) to stream of words, in byte order; one word a cycle, no gap in between.

    A segment is view.n0 bytes: view.pix_bytes of each pixel, from channel byte view.c0 on. `view` must be stable from
    the cycle of the first segment until `busy` is low. The first word is there LATENCY cycles after its segment.
    """

    LATENCY = 4

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        self._banks, self._words, self._word_bytes = banks, words, word_bytes
        super().__init__(
            {
                "view": In(ViewLayout),
                "i": In(stream.Signature(PlaceLayout)),
                "o": Out(stream.Signature(word_layout(banks=banks, words=words, word_bytes=word_bytes))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.chunker = chunker = Chunker(unit=self._word_bytes, size_bits=16)
        pixels = self._pixels(m, chunker)
        pixel = Signal(signed(PIXEL_BITS))  # of the run in the chunker
        plane = Signal(PLANE_BITS)  # words from the first plane to that of the chunk
        first_plane = Signal(PLANE_BITS)
        product = Signal(32)
        word_bits = (self._word_bytes - 1).bit_length()
        m.d.comb += product.eq((self.view.c0 >> word_bits) * self.view.plane)
        m.d.sync += first_plane.eq(_saturated(product))
        with m.If(chunker.o.valid & chunker.o.ready):
            m.d.sync += plane.eq(_saturated(plane + self.view.plane))
        with m.If(chunker.i.valid & chunker.i.ready):
            m.d.sync += [pixel.eq(pixels.pixel), plane.eq(first_plane)]
        self._address(m, chunker, pixel, plane, pixels.busy)
        return m

    def _pixels(self, m: Module, chunker: Chunker) -> Any:
        """Feeds the chunker one run for each pixel of the segment; returns the state (pixel of the next run, busy)."""
        state = Signal(data.StructLayout({"pixel": signed(PIXEL_BITS), "left": 24, "marked": 1, "busy": 1}))
        final = Signal()
        word_bits = (self._word_bytes - 1).bit_length()
        m.d.comb += [
            final.eq(state.left <= self.view.pix_bytes),
            chunker.i.valid.eq(state.busy),
            chunker.i.p.offset.eq(self.view.c0[:word_bits]),
            chunker.i.p.size.eq(Mux(final, state.left, self.view.pix_bytes)),
            chunker.i.p.last.eq(final & state.marked),
            self.i.ready.eq(~state.busy | (chunker.i.ready & final)),
        ]
        with m.If(chunker.i.valid & chunker.i.ready):
            m.d.sync += [
                state.pixel.eq(state.pixel + 1),
                state.left.eq(state.left - self.view.pix_bytes),
                state.busy.eq(~final),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                state.pixel.eq(self.i.p.pixel),
                state.left.eq(self.view.n0),
                state.marked.eq(self.i.p.last),
                state.busy.eq(1),
            ]
        return state

    def _address(self, m: Module, chunker: Chunker, pixel: Signal, plane: Signal, feeding: Value) -> None:
        """Two registered stages: the operands of the address, and the address."""
        m.submodules.address = address = ViewAddress(banks=self._banks, words=self._words)
        held = Signal(self.o.payload.shape())
        held_pixel = Signal.like(pixel)
        held_plane = Signal(PLANE_BITS)
        full = Signal()
        move = Signal()
        m.d.comb += [
            move.eq(~self.o.valid | self.o.ready),
            chunker.o.ready.eq(~full | move),
            address.pixel.eq(held_pixel),
            address.shift.eq(self.view.shift),
            address.base.eq(self.view.base),
            address.plane_offset.eq(held_plane),
            self.busy.eq(feeding | chunker.busy | full | self.o.valid),
        ]
        with m.If(move):
            m.d.sync += [
                self.o.valid.eq(full),
                self.o.payload.eq(held),
                Cat(self.o.p.bank, self.o.p.addr, self.o.p.word).eq(Cat(address.bank, address.addr, address.word)),
                self.o.p.outside.eq(address.overflow | held_pixel[ViewAddress.PIXEL_BITS - 1 :].any()),
                full.eq(0),
            ]
        with m.If(chunker.o.valid & chunker.o.ready):
            m.d.sync += [
                *(full.eq(1), held_pixel.eq(pixel), held_plane.eq(plane)),
                *(held.offset.eq(chunker.o.p.offset), held.count.eq(chunker.o.p.count), held.last.eq(chunker.o.p.last)),
            ]
