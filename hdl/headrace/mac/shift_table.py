"""Table of the group offset shifts kc: one for each column and word."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import KcWrite

__all__ = ["ShiftTable"]

PER_ELEMENT = 8  # shifts in an element, 4 bits apart
SHIFT_BITS = 3


class ShiftTable(wiring.Component):
    """`words` words of `cols` shifts of 0..7.

    write: element word*ceil(cols/8) + c div 8 holds the shift of column c in bits 4*(c mod 8) .. + 2. The value is in
    the table WRITE_LATENCY cycles later; elements beyond the last word are not written to.
    shifts: those of `word`, LATENCY cycles after `en`, until the next read arrives.
    """

    LATENCY = 1
    WRITE_LATENCY = 2

    def __init__(self, *, cols: int, words: int) -> None:
        self._cols, self._words = cols, words
        self._elements = -(-cols // PER_ELEMENT)  # of a word
        super().__init__(
            {
                "write": In(KcWrite(elements=words * self._elements)),
                "en": In(1),
                "word": In(index_bits(words)),
                "shifts": Out(data.ArrayLayout(SHIFT_BITS, cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        granule = PER_ELEMENT * SHIFT_BITS
        m.submodules.memory = memory = Memory(shape=granule * self._elements, depth=self._words, init=[])
        read = memory.read_port(domain="sync")
        write = memory.write_port(domain="sync", granularity=granule)
        value = Signal(granule)
        word = Signal(index_bits(self._words))
        mask = Signal(self._elements)
        place = self.write.element % self._elements
        # Registered, as the division is by a constant which need not be a power of two.
        m.d.sync += [
            value.eq(Cat(self.write.data[4 * i :][:SHIFT_BITS] for i in range(PER_ELEMENT))),
            word.eq(self.write.element // self._elements),
            mask.eq(Cat(self.write.en & (place == i) for i in range(self._elements))),
        ]
        m.d.comb += [
            *(write.en.eq(mask), write.addr.eq(word), write.data.eq(value.replicate(self._elements))),
            *(read.en.eq(self.en), read.addr.eq(self.word)),
            self.shifts.as_value().eq(read.data),
        ]
        return m
