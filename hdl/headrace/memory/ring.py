"""Weight ring: a circular buffer of weight entries, one memory a column and one for the tags."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.interfaces import RING_LATENCY, RingRead, RingWrite

from .ram import RamBank

__all__ = ["WeightRing"]


class WeightRing(wiring.Component):
    """Ring of `entries` (a power of two) entries of `cols` x `word_bytes` bytes, each with an 8-bit tag.

    write: beats of entries in order, `entry_beats` = ceil(cols * word_bytes / axi_bytes) beats an entry, lowest column
    first; the last beat of an entry makes it part of `read.level` in the next cycle. `free` falls by `reserve` and
    rises by `release` in the next cycle.
    read: see RingRead; `codes` and `tag` are valid LATENCY cycles after `en`, until the next read arrives.
    """

    LATENCY = RING_LATENCY

    def __init__(self, *, cols: int, word_bytes: int, entries: int, axi_bytes: int) -> None:
        if entries < 2 or entries & (entries - 1):
            raise ValueError(f"a ring holds a power of two of entries, not {entries}")
        self._cols, self._word_bytes, self._entries, self._axi_bytes = cols, word_bytes, entries, axi_bytes
        self.entry_beats = -(-cols * word_bytes // axi_bytes)
        super().__init__(
            {
                "write": In(RingWrite(axi_bytes=axi_bytes, entries=entries)),
                "read": In(RingRead(cols=cols, word_bytes=word_bytes, entries=entries)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        oldest = Signal(range(self._entries))
        newest = Signal(range(self._entries))  # the entry being written
        beat = Signal(index_bits(self.entry_beats))
        complete = Signal()
        free = Signal(range(self._entries + 1), init=self._entries)
        address = Signal(range(self._entries))
        m.d.comb += [
            complete.eq(self.write.valid & (beat == self.entry_beats - 1)),
            self.write.free.eq(free),
            address.eq(oldest + self.read.offset),
        ]
        m.d.sync += [
            free.eq(free - self.write.reserve + self.read.release),
            oldest.eq(oldest + self.read.release),
            self.read.level.eq(self.read.level + complete - self.read.release),
        ]
        with m.If(self.write.valid):
            m.d.sync += [beat.eq(Mux(complete, 0, beat + 1)), newest.eq(newest + complete)]
        for column in range(self._cols):
            bank = RamBank(depth=self._entries, width=8 * self._word_bytes, granule=8 * self._granule)
            add_cell(m, f"column{column}", bank, platform)
            m.d.comb += [
                bank.w_mask.eq(Mux(self.write.valid, self._mask(m, column, beat), 0)),
                bank.w_data.eq(self._column_data(column)),
                bank.w_addr.eq(newest),
                bank.r_en.eq(self.read.en),
                bank.r_addr.eq(address),
                self.read.codes[column].eq(bank.r_data),
            ]
        tags = RamBank(depth=self._entries, width=8, granule=8)
        add_cell(m, "tags", tags, platform)
        m.d.comb += [
            tags.w_mask.eq(self.write.valid),
            tags.w_data.eq(self.write.tag),
            tags.w_addr.eq(newest),
            tags.r_en.eq(self.read.en),
            tags.r_addr.eq(address),
            self.read.tag.eq(tags.r_data),
        ]
        return m

    @property
    def _granule(self) -> int:
        return min(self._word_bytes, self._axi_bytes)

    def _mask(self, m: Module, column: int, beat: Signal) -> Signal:
        """Granules of the column which this beat holds."""
        first = column * self._word_bytes // self._granule
        mask = Signal(self._word_bytes // self._granule, name=f"mask{column}")
        per_beat = self._axi_bytes // self._granule
        m.d.comb += mask.eq(Cat(beat == (first + i) // per_beat for i in range(len(mask))))
        return mask

    def _column_data(self, column: int) -> Cat:
        """The column's word if this beat is its: its share of the beat, or the beat in every granule."""
        per_beat = self._axi_bytes // self._granule
        first = column * self._word_bytes // self._granule
        granule = self.write.data.word_select(Const(first % per_beat), 8 * self._granule)
        return Cat(granule for _ in range(self._word_bytes // self._granule))
