"""Addresses of the activations: every entry and row group of every tile."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision, index_bits
from headrace.interfaces import ADDR_BITS, SpadBankRead
from headrace.mac.cursor import PLACE, WordCursor
from headrace.mac.gather import Gather, vector_layout
from headrace.mac.jobs import FEED_JOB, OPERATION, step_layout
from headrace.mac.rows import COORD_BITS, PIXEL_BITS, ROW, tile_layout
from headrace.mac.words import fold_pixels
from headrace.memory.view import ViewAddress

__all__ = ["Feeder"]


class Feeder(wiring.Component):
    """Activation vectors of a job's tiles in the order `for entry: for t: for word of the entry`.

    Word (ky, kx, q) of a row that starts at (iy, ix, pixel) is pixel + (ky * dil_y) * in_w + kx * dil_x of plane
    in_c0 div 2K + q + group * group_planes. Outside the input it is `pad_value`, beyond `m_count` zero. An entry has
    one word, in A8W4 two; the missing one of an odd count is zero.

    With `fold` a pixel has four bytes, G = 2K / 4 of them make a word (word = pixel div G of the view, `in_p0` counts
    pixels), and word q of a kernel row takes G consecutive pixels from kernel column q * G on: two accesses, shifted.

    Depthwise the words of an entry are those of kernel row ky in plane in_c0 div 2K + n; the odd kernel columns of
    `contiguous` row groups are left out, as the neighbours of a row have them (`step.shared`).

    One access a cycle when no banks conflict. `range_error` is set while an access that is needed lies outside the
    scratchpad: `error_address` is the word's address, `error_index` the command; it is not made.
    """

    def __init__(self, *, rows: int, lanes: int, accs: int, bank_words: int, taps: int) -> None:
        self._rows = rows
        self._word_bytes = 2 * lanes
        self._accs = accs
        self._taps = taps
        self._bank_words = bank_words
        self._pixels = fold_pixels(self._word_bytes)
        vector = vector_layout(rows=rows, word_bytes=self._word_bytes, accs=accs, taps=taps)
        super().__init__(
            {
                "job": In(stream.Signature(FEED_JOB)),
                "tile": In(stream.Signature(tile_layout(accs=accs))),
                "t": Out(index_bits(accs)),
                "row": In(data.ArrayLayout(ROW, rows)),
                "contiguous": In(1),
                "banks": Out(SpadBankRead(words=bank_words, word_bytes=self._word_bytes)).array(rows),
                "o": Out(stream.Signature(vector)),
                "stop": In(1),
                "range_error": Out(1),
                "error_address": Out(ADDR_BITS),
                "error_index": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gather = gather = Gather(
            rows=self._rows,
            bank_words=self._bank_words,
            word_bytes=self._word_bytes,
            accs=self._accs,
            taps=self._taps,
        )
        m.d.comb += [
            self.o.valid.eq(gather.o.valid),
            self.o.payload.eq(gather.o.payload),
            gather.o.ready.eq(self.o.ready),
            gather.stop.eq(self.stop),
        ]
        for ours, theirs in zip(self.banks, gather.banks):
            m.d.comb += [ours.en.eq(theirs.en), ours.addr.eq(theirs.addr)]
            m.d.comb += [theirs.data.eq(ours.data), theirs.ka.eq(ours.ka)]
        position = Signal(
            data.StructLayout(
                {
                    "rows": data.ArrayLayout(ROW, self._rows),
                    "plane": 24,
                    "missing": 1,
                    "step": step_layout(accs=self._accs, taps=self._taps),
                    "job": FEED_JOB,
                }
            )
        )
        placed, ready = Signal(), Signal()
        self._walk(m, position, placed, ready)
        self._locate(m, position, placed, ready, gather)
        return m

    def _walk(self, m: Module, position: Any, placed: Signal, ready: Signal) -> None:
        """Loop over tiles, entries, row groups and words; `position` holds a vector's coordinates while `placed`."""
        m.submodules.cursor = cursor = WordCursor(word_bytes=self._word_bytes)
        t, half = Signal(range(self._accs)), Signal()
        job, running, enter = Signal(FEED_JOB), Signal(), Signal()
        fresh, missing, place = Signal(), Signal(), Signal(PLACE)
        step, tile = Signal(position.step.shape()), self.tile.payload
        group_last, entry_final = Signal(), Signal()  # last word of the row group; the entry is the tile's last
        m.d.comb += [
            enter.eq(running & self.tile.valid & ready & ~self.stop),
            self.t.eq(t),
            self.tile.ready.eq(enter & step.tile_last),
            self.job.ready.eq(~running | enter & step.last),
            fresh.eq(job.depthwise | (t == 0)),
            cursor.load.eq(self.job.ready),
            cursor.new.eq(self.job.payload),
            cursor.job.eq(job),
            cursor.n_last.eq(tile.n_last),
            cursor.final.eq(tile.last),
            cursor.next.eq(enter & fresh & ~missing),
            cursor.rewind.eq(job.depthwise & ~step.entry_last),
            group_last.eq(Mux(job.depthwise, cursor.kx_last, half | (job.mode != Precision.A8W4))),
        ]
        self._entry_words(m, cursor, enter, fresh, half, place, missing, entry_final)
        self._step(m, job, cursor, t, half, enter, group_last, entry_final, step)
        with m.If(ready):
            m.d.sync += placed.eq(enter)
        with m.If(enter):
            m.d.sync += half.eq((job.mode == Precision.A8W4) & ~half)
            m.d.sync += [position.job.eq(job), position.missing.eq(missing), position.plane.eq(place.plane)]
            m.d.sync += position.step.eq(step)
            for r, row in enumerate(self.row):
                m.d.sync += [
                    position.rows[r].iy.eq(row.iy + place.dy),
                    position.rows[r].ix.eq(row.ix + place.dx),
                    position.rows[r].pixel.eq(row.pixel + place.offset),
                    position.rows[r].valid.eq(row.valid),
                ]
            with m.If(group_last):
                m.d.sync += t.eq(Mux(step.entry_last, 0, t + 1))
        with m.If(self.job.ready):
            m.d.sync += [running.eq(self.job.valid), job.eq(self.job.payload)]

    def _entry_words(
        self, m: Module, cursor: WordCursor, enter: Signal, fresh: Signal, half: Signal,
        place: Any, missing: Signal, final: Signal,
    ) -> None:  # fmt: skip
        """Places of the entry's words: from the cursor with the entry's first row group, kept for the others.

        `missing`: the second word of the entry is beyond the reduction; `final`: the entry is the last of the tile.
        """
        places = [Signal(PLACE, name=f"place_{i}") for i in range(2)]
        ended, odd = Signal(), Signal()  # the reduction ended with a word met so far; with the first of two words
        m.d.comb += [
            missing.eq(half & Mux(fresh, ended, odd)),
            final.eq(Mux(fresh, cursor.last | missing, ended)),
            place.eq(Mux(fresh, cursor.place, Mux(half, places[1], places[0]))),
        ]
        with m.If(enter & fresh):
            m.d.sync += [ended.eq(final), odd.eq(missing)]
            for i in range(2):
                with m.If(half == i):
                    m.d.sync += places[i].eq(cursor.place)

    def _step(
        self, m: Module, job: Any, cursor: WordCursor, t: Signal, half: Signal, enter: Signal,
        group_last: Signal, entry_final: Signal, step: Any,
    ) -> None:  # fmt: skip
        """What goes with the vector to the array."""
        first = Signal(init=1)
        m.d.comb += [
            *(getattr(step.operation, name).eq(getattr(job, name)) for name, _ in OPERATION),
            step.t.eq(t),
            step.first.eq(first),
            step.half.eq(half),
            step.entry_last.eq(group_last & (t == self.tile.payload.t_used - 1)),
            step.tile_last.eq(step.entry_last & entry_final),
            step.last.eq(step.tile_last & self.tile.payload.last),
        ]
        with m.If(enter & step.entry_last):
            m.d.sync += first.eq(entry_final)
        if self._taps:
            odd_kernel = Signal()
            if self._rows > 1:
                new: Any = self.job.payload
                with m.If(self.job.ready):
                    m.d.sync += odd_kernel.eq(new.depthwise & new.kw[0] & (new.kw != 1) & (new.dil_x == 1))
            m.d.comb += [
                step.kx.eq(cursor.kx),
                step.kernel_last.eq(cursor.kx_last),
                step.shared.eq(odd_kernel & self.contiguous),
                step.taps.eq(job.kw),
                cursor.skip.eq(step.shared),
            ]

    def _locate(self, m: Module, position: Any, placed: Signal, ready: Signal, gather: Gather) -> None:
        """Bank and address of every row's word, what of it is inside, and the range check."""
        second = Signal()
        job = position.job
        access = gather.access.payload
        errors, words = Signal(self._rows), []
        m.d.comb += [
            access.second.eq(second),
            access.final.eq(second | ~job.fold),
            access.missing.eq(position.missing),
            access.pad.eq(job.pad_value),
            access.step.eq(position.step),
            gather.access.valid.eq(placed & (errors == 0)),
            ready.eq(~placed | gather.access.ready & gather.access.valid & access.final),
            self.range_error.eq(placed & (errors != 0)),
            self.error_index.eq(job.index),
        ]
        with m.If(gather.access.valid & gather.access.ready & job.fold):
            m.d.sync += second.eq(~second)
        for r in range(self._rows):
            m.submodules[f"view_{r}"] = view = ViewAddress(banks=self._rows, words=self._bank_words)
            row, out = position.rows[r], access.rows[r]
            wanted = Signal(name=f"wanted_{r}")
            m.d.comb += wanted.eq(row.valid & ~position.missing)
            inside = self._inside(m, job, row, wanted, r)
            log2 = self._pixels.bit_length() - 1
            shift = Signal(index_bits(self._pixels), name=f"shift_{r}")
            halves = Signal(2 * self._pixels, name=f"halves_{r}")  # inside, placed in the two words
            word = Signal(signed(PIXEL_BITS + 1), name=f"word_{r}")
            m.d.comb += [
                shift.eq(Mux(job.fold, row.pixel[:log2], 0)),
                halves.eq(inside << shift),
                word.eq(Mux(job.fold, (row.pixel >> log2) + second, row.pixel)),
                view.pixel.eq(word),
                view.shift.eq(job.in_shift),
                view.base.eq(job.in_base),
                view.plane_offset.eq(position.plane),
                out.need.eq(Mux(second, halves[self._pixels :].any(), halves[: self._pixels].any())),
                out.bank.eq(view.bank),
                out.addr.eq(view.addr),
                out.shift.eq(shift),
                out.inside.eq(inside),
                out.zero.eq(~wanted),
                errors[r].eq(out.need & (view.overflow | (word != view.pixel))),
            ]
            words.append(Mux(errors[r], view.word, 0))
        m.d.comb += self.error_address.eq(reduce(or_, words))

    def _inside(self, m: Module, job: Any, row: Any, wanted: Signal, r: int) -> Signal:
        """Which pixels of the word are inside the input; without fold, all or none."""
        inside = Signal(self._pixels, name=f"inside_{r}")
        iy, ix = Signal(COORD_BITS, name=f"iy_{r}"), Signal(COORD_BITS, name=f"ix_{r}")
        m.d.comb += [iy.eq(row.iy), ix.eq(row.ix)]  # negative coordinates become large
        in_row = Signal(name=f"in_row_{r}")
        m.d.comb += in_row.eq(wanted & (iy < job.in_h))
        columns = []
        for g in range(self._pixels):
            column = Signal(COORD_BITS, name=f"column_{r}_{g}")
            m.d.comb += column.eq(ix + Mux(job.fold, g, 0))
            columns.append(in_row & (column < job.in_w))
        m.d.comb += inside.eq(Cat(columns))
        return inside
