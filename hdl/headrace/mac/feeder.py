"""Addresses of the activations: every entry and row group of every tile."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import ADDR_BITS, SpadBankRead
from headrace.mac.entries import EntryLoop, fold_pixels, kernel_chunks
from headrace.mac.gather import Gather, vector_layout
from headrace.mac.jobs import FEED_JOB, step_layout
from headrace.mac.rows import COORD_BITS, PIXEL_BITS, ROW, tile_layout
from headrace.memory.view import ViewAddress

__all__ = ["Feeder"]


class Feeder(wiring.Component):
    """Activation vectors of a job's tiles in the order `for entry: for t`.

    Entry (ky, kx, q) of a row that starts at (iy, ix, pixel) reads pixel + (ky * dil_y) * in_w + kx * dil_x of plane
    in_c0 div 2K + q + group * group_planes. Outside the input it is `pad_value`, beyond `m_count` zero.

    With `fold` a pixel has four bytes, G = 2K / 4 of them make a word (word = pixel div G of the view, `in_p0` counts
    pixels), and entry q of a kernel row takes G consecutive pixels from kernel column q * G on: two accesses, shifted.

    One access a cycle when no banks conflict. `range_error` is set while an access that is needed lies outside the
    scratchpad: `error_address` is the word's address, `error_index` the command; it is not made.
    """

    def __init__(self, *, rows: int, lanes: int, accs: int, bank_words: int) -> None:
        self._rows = rows
        self._word_bytes = 2 * lanes
        self._accs = accs
        self._bank_words = bank_words
        self._pixels = fold_pixels(self._word_bytes)
        vector = vector_layout(rows=rows, word_bytes=self._word_bytes, accs=accs)
        super().__init__(
            {
                "job": In(stream.Signature(FEED_JOB)),
                "tile": In(stream.Signature(tile_layout(accs=accs))),
                "t": Out(index_bits(accs)),
                "row": In(data.ArrayLayout(ROW, rows)),
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
            rows=self._rows, bank_words=self._bank_words, word_bytes=self._word_bytes, accs=self._accs
        )
        m.d.comb += [
            self.o.valid.eq(gather.o.valid),
            self.o.payload.eq(gather.o.payload),
            gather.o.ready.eq(self.o.ready),
            gather.stop.eq(self.stop),
        ]
        for ours, theirs in zip(self.banks, gather.banks):
            m.d.comb += [ours.en.eq(theirs.en), ours.addr.eq(theirs.addr), theirs.data.eq(ours.data)]
        position = Signal(
            data.StructLayout(
                {
                    "rows": data.ArrayLayout(ROW, self._rows),
                    "plane": 24,
                    "step": step_layout(accs=self._accs),
                    "job": FEED_JOB,
                }
            )
        )
        placed, ready = Signal(), Signal()
        self._walk(m, position, placed, ready)
        self._locate(m, position, placed, ready, gather)
        return m

    def _walk(self, m: Module, position: Any, placed: Signal, ready: Signal) -> None:
        """Loop over tiles, entries and row groups; `position` holds a step's coordinates while `placed`."""
        m.submodules.entry = entry = EntryLoop()
        t, first, enter, t_last = Signal(range(self._accs)), Signal(init=1), Signal(), Signal()
        dy, dx, offset, row_offset = Signal(COORD_BITS), Signal(COORD_BITS), Signal(PIXEL_BITS), Signal(PIXEL_BITS)
        plane, group_base, next_base, dil_row = Signal(24), Signal(24), Signal(24), Signal(PIXEL_BITS)
        step_x = Signal(range(max(16, self._pixels + 1)))
        job, running, finished = Signal(FEED_JOB), Signal(), Signal()
        m.d.comb += [
            entry.kh.eq(job.kh),
            entry.kx_count.eq(kernel_chunks(job, self._word_bytes)),
            entry.cw.eq(job.cw),
            step_x.eq(Mux(job.fold, self._pixels, job.dil_x)),
            enter.eq(running & self.tile.valid & ready & ~self.stop),
            t_last.eq(t == self.tile.payload.t_used - 1),
            entry.next.eq(enter & t_last),
            self.tile.ready.eq(enter & t_last & entry.last),
            self.t.eq(t),
            finished.eq(self.tile.ready & self.tile.payload.last),
            self.job.ready.eq(~running | finished),
        ]
        self._groups(m, job, group_base, next_base)

        with m.If(ready):
            m.d.sync += placed.eq(enter)
        with m.If(enter):
            m.d.sync += t.eq(Mux(t_last, 0, t + 1))
            m.d.sync += [
                position.job.eq(job),
                position.plane.eq(plane),
                position.step.t.eq(t),
                position.step.first.eq(first),
                position.step.entry_last.eq(t_last),
                position.step.tile_last.eq(self.tile.ready),
                position.step.last.eq(finished),
            ]
            for r in range(self._rows):
                m.d.sync += [
                    position.rows[r].iy.eq(self.row[r].iy + dy),
                    position.rows[r].ix.eq(self.row[r].ix + dx),
                    position.rows[r].pixel.eq(self.row[r].pixel + offset),
                    position.rows[r].valid.eq(self.row[r].valid),
                ]
        with m.If(entry.next):
            m.d.sync += [first.eq(entry.last), plane.eq(plane + job.in_plane)]
            with m.If(entry.q_last):
                m.d.sync += [plane.eq(next_base), dx.eq(dx + step_x), offset.eq(offset + step_x)]
            with m.If(entry.kx_last):
                m.d.sync += [dx.eq(0), dy.eq(dy + job.dil_y), row_offset.eq(row_offset + dil_row)]
                m.d.sync += offset.eq(row_offset + dil_row)
            with m.If(entry.last):
                m.d.sync += [dy.eq(0), row_offset.eq(0), offset.eq(0)]
        with m.If(self.job.ready):
            new: Any = self.job.payload
            first_plane = Signal(24)
            m.d.comb += first_plane.eq((new.in_c0 >> (self._word_bytes.bit_length() - 1)) * new.in_plane)
            m.d.sync += [running.eq(self.job.valid), job.eq(new), dil_row.eq(new.dil_y * new.in_w)]
            m.d.sync += [plane.eq(first_plane), group_base.eq(first_plane)]

    def _groups(self, m: Module, job: Any, group_base: Signal, next_base: Signal) -> None:
        """`next_base`: plane offset of the next kernel position, which may be the first of another group."""
        in_group = Signal(16)
        m.d.comb += next_base.eq(group_base)
        with m.If(self.tile.ready & self.tile.payload.n_last):
            m.d.sync += in_group.eq(in_group + 1)
            with m.If(in_group == job.group_tiles - 1):
                m.d.sync += in_group.eq(0)
                m.d.comb += next_base.eq(group_base + job.group_planes * job.in_plane)
                m.d.sync += group_base.eq(next_base)
            with m.If(self.tile.payload.last):
                m.d.sync += in_group.eq(0)

    def _locate(self, m: Module, position: Any, placed: Signal, ready: Signal, gather: Gather) -> None:
        """Bank and address of every row's word, what of it is inside, and the range check."""
        second = Signal()
        job = position.job
        access = gather.access.payload
        errors, words = Signal(self._rows), []
        m.d.comb += [
            access.second.eq(second),
            access.final.eq(second | ~job.fold),
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
            inside = self._inside(m, job, row, r)
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
                out.zero.eq(~row.valid),
                errors[r].eq(out.need & (view.overflow | (word != view.pixel))),
            ]
            words.append(Mux(errors[r], view.word, 0))
        m.d.comb += self.error_address.eq(reduce(or_, words))

    def _inside(self, m: Module, job: Any, row: Any, r: int) -> Signal:
        """Which pixels of the word are inside the input; without fold, all or none."""
        inside = Signal(self._pixels, name=f"inside_{r}")
        iy, ix = Signal(COORD_BITS, name=f"iy_{r}"), Signal(COORD_BITS, name=f"ix_{r}")
        m.d.comb += [iy.eq(row.iy), ix.eq(row.ix)]  # negative coordinates become large
        in_row = Signal(name=f"in_row_{r}")
        m.d.comb += in_row.eq(row.valid & (iy < job.in_h))
        columns = []
        for g in range(self._pixels):
            column = Signal(COORD_BITS, name=f"column_{r}_{g}")
            m.d.comb += column.eq(ix + Mux(job.fold, g, 0))
            columns.append(in_row & (column < job.in_w))
        m.d.comb += inside.eq(Cat(columns))
        return inside
