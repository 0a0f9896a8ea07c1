"""Where the words of the reduction are, relative to a row's first pixel."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.mac.jobs import FEED_JOB
from headrace.mac.rows import COORD_BITS, PIXEL_BITS
from headrace.mac.words import WordLoop, fold_pixels, kernel_chunks

__all__ = ["PLACE", "WordCursor"]

PLACE = data.StructLayout({"dy": COORD_BITS, "dx": COORD_BITS, "offset": PIXEL_BITS, "plane": 24})


class WordCursor(wiring.Component):
    """Walks over the words of every tile of a job, in the order of the reduction.

    Word (ky, kx, q) is at `place`: dy = ky * dil_y, dx = kx * dil_x, `offset` = dy * in_w + dx pixels, and `plane` =
    (in_c0 div 2K + q + group * group_planes) * in_plane words; depthwise, n tile n takes the place of the group's.

    `load` begins the job `new`; `job` is the one in progress. `next` goes on, `rewind` and `skip` as in `WordLoop`.
    After the `last` word of a tile comes the first of the next tile; `n_last`, `final`: the tile is the last of its
    n tile, of the command.
    """

    def __init__(self, *, word_bytes: int) -> None:
        self._word_bytes = word_bytes
        super().__init__(
            {
                "load": In(1),
                "new": In(FEED_JOB),
                "job": In(FEED_JOB),
                "n_last": In(1),
                "final": In(1),
                "next": In(1),
                "rewind": In(1),
                "skip": In(1),
                "place": Out(PLACE),
                "kx": Out(8),
                "kx_last": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.loop = loop = WordLoop()
        pixels = fold_pixels(self._word_bytes)
        job: Any = self.job
        place = Signal(PLACE)
        dil_row, row_offset = Signal(PIXEL_BITS), Signal(PIXEL_BITS)
        step_x = Signal(range(max(32, pixels + 1)))
        next_base, first_plane = Signal(24), Signal(24)
        m.d.comb += [
            loop.kh.eq(job.kh),
            loop.kx_count.eq(kernel_chunks(job, self._word_bytes)),
            loop.cw.eq(job.cw),
            loop.next.eq(self.next),
            loop.rewind.eq(self.rewind),
            loop.skip.eq(self.skip),
            step_x.eq(Mux(job.fold, pixels, job.dil_x << self.skip)),
            self.place.eq(place),
            self.kx.eq(loop.kx),
            self.kx_last.eq(loop.kx_last),
            self.last.eq(loop.last),
        ]
        with m.If(self.next):
            m.d.sync += place.plane.eq(place.plane + job.in_plane)
            with m.If(loop.q_last):
                m.d.sync += place.plane.eq(next_base)
                m.d.sync += [place.dx.eq(place.dx + step_x), place.offset.eq(place.offset + step_x)]
            with m.If(loop.kx_last):
                m.d.sync += [place.dx.eq(0), place.offset.eq(row_offset)]
                with m.If(~self.rewind):
                    m.d.sync += [place.dy.eq(place.dy + job.dil_y), row_offset.eq(row_offset + dil_row)]
                    m.d.sync += place.offset.eq(row_offset + dil_row)
            with m.If(loop.last & ~self.rewind):
                m.d.sync += [place.dy.eq(0), row_offset.eq(0), place.offset.eq(0)]
        new: Any = self.new
        m.d.comb += first_plane.eq((new.in_c0 >> (self._word_bytes.bit_length() - 1)) * new.in_plane)
        self._bases(m, first_plane, next_base)
        with m.If(self.load):
            m.d.sync += [place.plane.eq(first_plane), dil_row.eq(new.dil_y * new.in_w)]
        return m

    def _bases(self, m: Module, first_plane: Signal, next_base: Signal) -> None:
        """`next_base`: plane offset of the next kernel position, which may be the first of another group."""
        new: Any = self.new
        job: Any = self.job
        base, step, in_group = Signal(24), Signal(24), Signal(16)
        m.d.comb += next_base.eq(base)
        with m.If(self.next & self.last & ~self.rewind & self.n_last):
            m.d.sync += in_group.eq(in_group + 1)
            with m.If((in_group == job.group_tiles - 1) | job.depthwise):
                m.d.sync += in_group.eq(0)
                m.d.comb += next_base.eq(base + step)
                m.d.sync += base.eq(next_base)
            with m.If(self.final):
                m.d.sync += in_group.eq(0)
        with m.If(self.load):
            m.d.sync += [base.eq(first_plane), step.eq(Mux(new.depthwise, 1, new.group_planes) * new.in_plane)]
