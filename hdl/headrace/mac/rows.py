"""Row coordinates: which input pixel every row of every row group starts from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.mac.jobs import ROW_JOB

__all__ = ["COORD_BITS", "PIXEL_BITS", "ROW", "RowWalker", "tile_layout"]

COORD_BITS = 21  # oy * stride_y and ox * stride_x below 2^20, negative padding and all
PIXEL_BITS = 24

ROW = data.StructLayout({"iy": signed(COORD_BITS), "ix": signed(COORD_BITS), "pixel": signed(PIXEL_BITS), "valid": 1})
POSITION = data.StructLayout(
    {"ox": unsigned(16), "iy": signed(COORD_BITS), "ix": signed(COORD_BITS), "pixel": signed(PIXEL_BITS)}
)
LINEAR = ("iy", "ix", "pixel")  # fields that advance by sums alone


def tile_layout(*, accs: int) -> data.StructLayout:
    """A tile: its row groups; whether it is the last of its n tile, of its command."""
    return data.StructLayout({"t_used": range(accs + 1), "n_last": 1, "last": 1})


class _Steps:
    """The steps rows take: by one output pixel or, with `use_jump`, from chunk to chunk.

    `wrap` is what is added when the step crosses the end of an output row.
    """

    def __init__(self, m: Module, job: Any) -> None:
        self._m = m
        self._job = job
        self.use_jump = Signal()
        self.jump, self.wrap = Signal(POSITION), Signal(POSITION)
        self._plain, self._wrapped, single = Signal(POSITION), Signal(POSITION), Signal(POSITION)
        m.d.comb += [single.ox.eq(1), single.ix.eq(job.stride_x), single.pixel.eq(job.stride_x)]
        m.d.comb += self._plain.eq(Mux(self.use_jump, self.jump, single))
        for f in LINEAR:
            m.d.comb += getattr(self._wrapped, f).eq(getattr(self._plain, f) + getattr(self.wrap, f))

    def advance(self, position: Any, name: str) -> Any:
        """`position` after the step, combinational."""
        after, ox, over = Signal(POSITION, name=name), Signal(17, name=f"{name}_ox"), Signal(name=f"{name}_over")
        self._m.d.comb += [
            ox.eq(position.ox + self._plain.ox),
            over.eq(ox >= self._job.out_w),
            after.ox.eq(Mux(over, ox - self._job.out_w, ox)),
        ]
        for f in LINEAR:
            step = Mux(over, getattr(self._wrapped, f), getattr(self._plain, f))
            self._m.d.comb += getattr(after, f).eq(getattr(position, f) + step)
        return after


class RowWalker(wiring.Component):
    """Tables of row coordinates, a tile ahead of their use.

    For output pixel m of row r and group t of a tile (the loop nest of the MAC command) an entry holds

        iy = (m div out_w) * stride_y - pad_top;  ix = (m mod out_w) * stride_x - pad_left
        pixel = in_p0 + iy * in_w + ix;  valid = m < m_count

    `tile` offers the oldest finished table; while it is valid `row` is the table's entry `t`, combinational, for all
    rows, and `contiguous` tells that their pixels are neighbours: stride_x = 1, I = 1, one output row, below m_count.
    Transferring `tile` frees the table. There are two tables and one group is written a cycle, so that a tile's
    table is filled while the tile before it computes.

    Nothing is divided: at the start of a job a walk over m = 0 .. (R-1)*I + 1 finds every row's start and the distance
    from the last pixel of a chunk (the I consecutive pixels of a row) to the first of the next. From then on all rows
    advance together, by one pixel or by that distance, and wrap at most once. The first entry is written (R-1)*I + 4
    cycles after the transfer of `job`, which is accepted as soon as the tables of the job before are written.
    """

    def __init__(self, *, rows: int, accs: int) -> None:
        self._rows = rows
        self._accs = accs
        super().__init__(
            {
                "job": In(stream.Signature(ROW_JOB)),
                "tile": Out(stream.Signature(tile_layout(accs=accs))),
                "t": In(index_bits(accs)),
                "row": Out(data.ArrayLayout(ROW, rows)),
                "contiguous": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = Signal(ROW_JOB)
        walk = Signal(POSITION)
        start = [Signal(POSITION, name=f"start_{r}") for r in range(self._rows)]
        current = [Signal(POSITION, name=f"current_{r}") for r in range(self._rows)]
        steps = _Steps(m, job)
        restart, write, finished = Signal(), Signal(), Signal()

        with m.FSM():
            self._setup(m, job, steps, walk, start)
            with m.State("JUMP"):
                m.d.sync += [
                    steps.jump.ox.eq(walk.ox),
                    *(getattr(steps.jump, f).eq(getattr(walk, f) - getattr(start[0], f)) for f in LINEAR),
                ]
                m.d.comb += restart.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += write.eq(1)
                with m.If(finished):
                    m.next = "IDLE"
        self._tables(m, job, steps, current, start, restart, write, finished)
        return m

    def _neighbours(self, m: Module, job: Any, current: list[Any], last_valid: Value) -> Value:
        """Whether the rows' pixels follow each other in one output row, all valid."""
        single, last_ox = Signal(), Signal(17)
        m.d.sync += single.eq((job.ilv == 0) & (job.stride_x == 1))
        m.d.comb += last_ox.eq(current[0].ox + self._rows - 1)
        return single & last_valid & (last_ox < job.out_w)

    def _setup(self, m: Module, job: Any, steps: _Steps, walk: Any, start: list[Any]) -> None:
        """Take a job, prepare its products, and walk along the pixels until every row knows its start."""
        after = steps.advance(walk, "walk_after")
        inner = Signal(4)
        row = Signal(range(self._rows))
        with m.State("IDLE"):
            m.d.comb += self.job.ready.eq(1)
            m.d.sync += job.eq(self.job.payload)
            with m.If(self.job.valid):
                m.next = "ORIGIN"
        with m.State("ORIGIN"):
            wrap_ix = Signal(signed(COORD_BITS))
            m.d.comb += wrap_ix.eq(job.out_w * job.stride_x)
            m.d.sync += [
                walk.ox.eq(0),
                walk.iy.eq(-job.pad_top),
                walk.ix.eq(-job.pad_left),
                walk.pixel.eq(job.in_p0 - job.pad_top * job.in_w - job.pad_left),
                steps.wrap.iy.eq(job.stride_y),
                steps.wrap.ix.eq(-wrap_ix),
                steps.wrap.pixel.eq(job.stride_y * job.in_w - wrap_ix),
                inner.eq(0),
                row.eq(0),
            ]
            m.next = "WALK"
        with m.State("WALK"):
            m.d.sync += [walk.eq(after), inner.eq(inner + 1)]
            with m.If(inner == (1 << job.ilv) - 1):
                m.d.sync += inner.eq(0)
            with m.If(inner == 0):  # the first pixel of a row
                m.d.sync += [row.eq(row + 1), start[-1].eq(walk)]
                m.d.sync += [this.eq(following) for this, following in pairwise(start)]
                with m.If(row == self._rows - 1):
                    m.next = "JUMP"

    def _tables(
        self, m: Module, job: Any, steps: _Steps, current: list[Any], start: list[Any],
        restart: Signal, write: Signal, finished: Signal,
    ) -> None:  # fmt: skip
        """Loops over n tiles, tiles and row groups; the two tables and the queue of their descriptions."""
        n, mt, t = Signal(16), Signal(16), Signal(range(self._accs))
        inner = Signal(4)
        first_m = Signal(25)  # output pixel of row 0
        into, out, filled = Signal(), Signal(), Signal(2)
        tiles = [Signal(self.tile.payload.shape(), name=f"tile_{i}") for i in range(2)]
        tile = Signal(self.tile.payload.shape())
        enable, chunk_end, tile_end = Signal(), Signal(), Signal()
        m.d.comb += [
            enable.eq(write & (filled != 2)),
            chunk_end.eq(inner == (1 << job.ilv) - 1),
            steps.use_jump.eq(write & chunk_end),
            tile.n_last.eq(mt == job.m_tiles - 1),
            tile.last.eq(tile.n_last & (n == job.n_tiles - 1)),
            tile.t_used.eq(Mux(tile.n_last, job.t_last, job.t_count)),
            tile_end.eq(enable & (t == tile.t_used - 1)),
            finished.eq(tile_end & tile.last),
            self.tile.valid.eq(filled != 0),
            self.tile.payload.eq(Mux(out, tiles[1], tiles[0])),
        ]
        m.d.sync += filled.eq(filled + tile_end - (self.tile.valid & self.tile.ready))
        with m.If(self.tile.valid & self.tile.ready):
            m.d.sync += out.eq(~out)
        with m.If(enable):
            m.d.sync += [t.eq(t + 1), inner.eq(Mux(chunk_end, 0, inner + 1))]
            m.d.sync += first_m.eq(first_m + Mux(chunk_end, ((self._rows - 1) << job.ilv) + 1, 1))
        with m.If(tile_end):
            m.d.sync += [t.eq(0), into.eq(~into), mt.eq(Mux(tile.n_last, 0, mt + 1))]
            with m.If(tile.n_last):
                m.d.sync += n.eq(Mux(tile.last, 0, n + 1))
        begin = Signal()
        m.d.comb += begin.eq(restart | tile_end & tile.n_last)
        with m.If(begin):
            m.d.sync += [first_m.eq(0), inner.eq(0)]
        for i in range(2):
            with m.If(tile_end & (into == i)):
                m.d.sync += tiles[i].eq(tile)

        m.submodules.table = table = memory.Memory(
            shape=data.StructLayout({"rows": data.ArrayLayout(ROW, self._rows), "contiguous": 1}),
            depth=2 * self._accs,
            init=[],
        )
        port, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            port.addr.eq(Mux(into, self._accs, 0) + t),
            port.en.eq(enable),
            read.addr.eq(Mux(out, self._accs, 0) + self.t),
            self.row.eq(read.data.rows),
            self.contiguous.eq(read.data.contiguous),
            port.data.contiguous.eq(self._neighbours(m, job, current, port.data.rows[-1].valid)),
        ]
        for r, position in enumerate(current):
            after = steps.advance(position, f"after_{r}")
            m.d.comb += [getattr(port.data.rows[r], f).eq(getattr(position, f)) for f in LINEAR]
            m.d.comb += port.data.rows[r].valid.eq(first_m + (r << job.ilv) < job.m_count)
            with m.If(begin):
                m.d.sync += position.eq(start[r])
            with m.Elif(enable):
                m.d.sync += position.eq(after)
