"""The loop over the words of a tile's reduction."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WordLoop", "fold_pixels", "kernel_chunks"]


def fold_pixels(word_bytes: int) -> int:
    """Pixels of four bytes in a word."""
    return word_bytes // 4


def kernel_chunks(job: Any, word_bytes: int) -> Value:
    """Words along a kernel row for each channel word: kernel columns, or with fold the words they fill."""
    pixels = fold_pixels(word_bytes)
    return Mux(job.fold, (job.kw + pixels - 1) >> (pixels.bit_length() - 1), job.kw)


class WordLoop(wiring.Component):
    """Counts words in the order ky, kx, q (innermost): kh * kx_count * cw of them, then from the start again.

    `q_last`: last channel word of a kernel position; `kx_last`: and of a kernel row; `last`: last word.
    `next` goes on to the next one; with `rewind`, back to the first word of the kernel row; with `skip`, one kernel
    column further than usual (for an odd kx_count, and set along the whole row).
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "kh": In(8),
                "kx_count": In(8),
                "cw": In(12),
                "next": In(1),
                "rewind": In(1),
                "skip": In(1),
                "kx": Out(8),
                "q_last": Out(1),
                "kx_last": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ky, kx, q = Signal(8), Signal(8), Signal(12)
        m.d.comb += [
            self.kx.eq(kx),
            self.q_last.eq(q == self.cw - 1),
            self.kx_last.eq(self.q_last & (kx == self.kx_count - 1)),
            self.last.eq(self.kx_last & (ky == self.kh - 1)),
        ]
        with m.If(self.next):
            m.d.sync += q.eq(Mux(self.q_last, 0, q + 1))
            with m.If(self.q_last):
                m.d.sync += kx.eq(Mux(self.kx_last, 0, kx + 1 + self.skip))
            with m.If(self.kx_last & ~self.rewind):
                m.d.sync += ky.eq(Mux(self.last, 0, ky + 1))
        return m
