"""Weight ring: a circular buffer of weight entries, memories of codes and scales a column and one for the tags."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from headrace.cells import add_cell
from headrace.interfaces import RING_LATENCY, RingRead, RingWrite

from .ram import RamBank

__all__ = ["WeightRing"]


class WeightRing(wiring.Component):
    """Ring of `entries` (a power of two) entries of `cols` x `word_bytes` bytes of codes, each with an 8-bit tag and
    `groups` group scales (of two bytes, sd and sm) a column.

    write: beats of entries in order: `entry_beats` = ceil(cols * word_bytes / axi_bytes) beats of codes, lowest column
    first, then, if `scales` is set, `scale_beats` = ceil(2 * cols * groups / axi_bytes) beats of scales in the same
    order; without, the entry's scales become zero. The last beat of an entry makes it part of `read.level` in the next
    cycle. `free` falls by `reserve` and rises by `release` in the next cycle.
    read: see RingRead; `codes`, `scales` and `tag` are valid LATENCY cycles after `en`, until the next read arrives.
    """

    LATENCY = RING_LATENCY

    def __init__(
        self, *, cols: int, word_bytes: int, entries: int, axi_bytes: int, groups: int, scale_beats: int
    ) -> None:
        if entries < 2 or entries & (entries - 1):
            raise ValueError(f"a ring holds a power of two of entries, not {entries}")
        if scale_beats != -(-2 * cols * groups // axi_bytes):
            raise ValueError(f"{groups} group scales of {cols} columns do not fill {scale_beats} beats")
        self._cols, self._word_bytes, self._scale_bytes = cols, word_bytes, 2 * groups
        self._entries, self._axi_bytes = entries, axi_bytes
        self.entry_beats = -(-cols * word_bytes // axi_bytes)
        self.scale_beats = scale_beats
        super().__init__(
            {
                "write": In(RingWrite(axi_bytes=axi_bytes, entries=entries)),
                "read": In(RingRead(cols=cols, word_bytes=word_bytes, entries=entries, groups=groups)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        oldest = Signal(range(self._entries))
        newest = Signal(range(self._entries))  # the entry being written
        beat = Signal(range(self.entry_beats + self.scale_beats))
        last = Signal.like(beat)
        complete = Signal()
        free = Signal(range(self._entries + 1), init=self._entries)
        address = Signal(range(self._entries))
        m.d.comb += [
            last.eq(self.entry_beats - 1 + Mux(self.write.scales, self.scale_beats, 0)),
            complete.eq(self.write.valid & (beat == last)),
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

        banks = {"tags": RamBank(depth=self._entries, width=8, granule=8)}
        m.d.comb += [
            banks["tags"].w_mask.eq(self.write.valid),
            banks["tags"].w_data.eq(self.write.tag),
            self.read.tag.eq(banks["tags"].r_data),
        ]
        for column in range(self._cols):
            codes = self._share(m, column, self._word_bytes, beat, 0)
            scales = self._share(m, column, self._scale_bytes, beat, self.entry_beats)
            m.d.comb += [self.read.codes[column].eq(codes.r_data), self.read.scales[column].eq(scales.r_data)]
            with m.If(self.write.valid & ~self.write.scales):
                m.d.comb += [scales.w_mask.eq(-1), scales.w_data.eq(0)]
            banks |= {f"codes{column}": codes, f"scales{column}": scales}
        for name, bank in banks.items():
            add_cell(m, name, bank, platform)
            m.d.comb += [bank.w_addr.eq(newest), bank.r_en.eq(self.read.en), bank.r_addr.eq(address)]
        return m

    def _share(self, m: Module, column: int, size: int, beat: Signal, first_beat: int) -> RamBank:
        """Memory of one column's `size` bytes of every entry, written from the beats `first_beat` and on."""
        granule = min(size, self._axi_bytes)
        bank = RamBank(depth=self._entries, width=8 * size, granule=8 * granule)
        granules, per_beat = size // granule, self._axi_bytes // granule
        place = column * granules  # of the first granule, among those of all columns
        hits: list[Value] = [beat == first_beat + (place + i) // per_beat for i in range(granules)]
        # A column either lies in one beat, or takes whole beats: then each of its granules is offered every beat.
        part = self.write.data[8 * granule * (place % per_beat) :][: 8 * granule]
        m.d.comb += [bank.w_mask.eq(Mux(self.write.valid, Cat(hits), 0)), bank.w_data.eq(part.replicate(granules))]
        return bank
