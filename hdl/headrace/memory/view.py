"""Where a tensor view puts a pixel's channel plane in the banked scratchpad."""

from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

__all__ = ["ViewAddress"]


class ViewAddress(wiring.Component):
    """Combinational address map of a view, s = 1 << shift pixels to a bank:

        bank = (pixel div s) mod R
        addr = base + plane_offset + (pixel div (s R)) s + pixel mod s

    `plane_offset` is plane number times words between planes, kept by the caller as a running sum.
    `word` is the address before it is cut to the bank, for error reports.
    `overflow` is set when the pixel is negative or the address is outside the bank.
    """

    PIXEL_BITS = 22

    def __init__(self, *, banks: int, words: int) -> None:
        self._banks = banks
        self._words = words
        super().__init__(
            {
                "pixel": In(signed(self.PIXEL_BITS)),
                "shift": In(2),
                "base": In(16),
                "plane_offset": In(24),
                "bank": Out(index_bits(banks)),
                "addr": Out(index_bits(words)),
                "word": Out(26),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pixel = Signal(self.PIXEL_BITS)
        group = Signal(self.PIXEL_BITS)  # pixel div s
        row = Signal(self.PIXEL_BITS)  # pixel div (s R)
        slot = Signal(self.PIXEL_BITS + 3)
        full = Signal(26)
        m.d.comb += [
            pixel.eq(self.pixel),
            group.eq(pixel >> self.shift),
            row.eq(group // self._banks),
            self.bank.eq(group % self._banks),
            slot.eq((row << self.shift) | (pixel & ((Value.cast(1) << self.shift) - 1))),
            full.eq(self.base + self.plane_offset + slot),
            self.addr.eq(full),
            self.word.eq(full),
            self.overflow.eq((self.pixel < 0) | (full >= self._words)),
        ]
        return m
