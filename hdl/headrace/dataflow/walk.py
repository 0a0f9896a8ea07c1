"""Walkers through the loop nests of the EPILOGUE and VECTOR commands."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.dataflow.beat import CHANNEL_BITS, IDX_BITS, PIXEL_BITS

__all__ = ["LoopNest", "TileWalk"]


class LoopNest(wiring.Component):
    """A nest of loops, loop 0 innermost, with positions that are linear in the loop counters.

    position[c] = base[c] + sum over loops i of counter[i] * step[c][i]. `load` takes `base` and sets the counters to
    zero; `advance` moves to the next iteration; `last` marks the final one, bit i of `ends` the last one of loops
    0 .. i. `counts` and `steps` must hold from the cycle after `load` until the last `advance`. `load` and `advance`
    may coincide, `load` prevails.
    """

    def __init__(self, *, loops: int, widths: Sequence[int]) -> None:
        self._loops, self._widths = loops, tuple(widths)
        super().__init__(
            {
                "load": In(1),
                "advance": In(1),
                "last": Out(1),
                "ends": Out(loops),
                "counts": In(data.ArrayLayout(16, loops)),
                "counters": Out(data.ArrayLayout(16, loops)),
                **{f"base_{c}": In(signed(w)) for c, w in enumerate(self._widths)},
                **{f"steps_{c}": In(data.ArrayLayout(signed(16), loops)) for c in range(len(self._widths))},
                **{f"position_{c}": Out(signed(w)) for c, w in enumerate(self._widths)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at_end = Signal(self._loops)
        m.d.comb += [
            *(at_end[i].eq(self.counters[i] + 1 >= self.counts[i]) for i in range(self._loops)),
            *(self.ends[i].eq(at_end[: i + 1].all()) for i in range(self._loops)),
            self.last.eq(self.ends[-1]),
        ]
        with m.If(self.load):
            m.d.sync += self.counters.eq(0)
        with m.Elif(self.advance):
            self._count(m, at_end)
        for c, width in enumerate(self._widths):
            self._follow(m, c, width, at_end)
        return m

    def _count(self, m: Module, at_end: Signal) -> None:
        for i in range(self._loops):
            with m.If(at_end[:i].all()):
                m.d.sync += self.counters[i].eq(Mux(at_end[i], 0, self.counters[i] + 1))

    def _follow(self, m: Module, c: int, width: int, at_end: Signal) -> None:
        """Position of coordinate c; for each loop the position at which its current iteration began."""
        base, steps, position = (getattr(self, f"{name}_{c}") for name in ("base", "steps", "position"))
        starts = [position, *(Signal(signed(width), name=f"start_{c}_{i}") for i in range(1, self._loops))]
        with m.If(self.load):
            m.d.sync += [start.eq(base) for start in starts]
        with m.Elif(self.advance):
            for i in range(self._loops):
                moved = Signal(signed(width), name=f"moved_{c}_{i}")
                m.d.comb += moved.eq(starts[i] + steps[i])
                with m.If(at_end[:i].all() & ~at_end[i]):
                    m.d.sync += [start.eq(moved) for start in starts[: i + 1]]


class TileWalk(wiring.Component):
    """The loop nest of EPILOGUE: n, mt, t, r, b; with `depthwise` n, mt, t, r, h, b, where h < `halves`.

    `load` sets all counters to zero, `advance` moves to the next beat. Fields of the command must hold from the cycle
    after `load` until the last `advance`; both may coincide, `load` prevails.

    t: accumulator of the PE; row, block: loop counters; pixel: m; channel: n*C + b*L; inside: m < m_count; lanes: valid
    lanes, 0 unless inside; idx: n*ceil(C/L) + b; first, last: of the tile; ends: last block of a pixel (and
    half); t_used: accumulators of the tile; final: the last tile.
    With `depthwise` the accumulator is t*H + h, and n*H + h counts as n.
    """

    FIELDS = ("n_tiles", "m_tiles", "m_count", "t_count", "t_last", "ilv", "channels", "depthwise")
    """Fields of the command, which are ports of the same names."""

    def __init__(self, *, rows: int, cols: int, accs: int, lanes: int, halves: int) -> None:
        self._rows, self._cols, self._lanes, self._halves = rows, cols, lanes, halves
        self._blocks = -(-cols // lanes)
        super().__init__(
            {
                "load": In(1),
                "advance": In(1),
                **{name: In(width) for name, width in zip(self.FIELDS, (16, 16, 24, 8, 8, 2, 16, 1))},
                "t": Out(index_bits(accs)),
                "row": Out(index_bits(rows)),
                "block": Out(index_bits(self._blocks)),
                "pixel": Out(PIXEL_BITS),
                "channel": Out(CHANNEL_BITS - 3),
                "inside": Out(1),
                "lanes": Out(Shape.cast(range(lanes + 1))),
                "idx": Out(IDX_BITS),
                "first": Out(1),
                "last": Out(1),
                "ends": Out(1),
                "t_used": Out(8),
                "final": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        n, mt = Signal(16), Signal(16)
        tile_pixel = Signal(PIXEL_BITS)
        tile_channel = Signal.like(self.channel)
        tile_idx = Signal(IDX_BITS)
        group, groups, half = Signal(8), Signal(8), Signal()
        end_n, end_m, end_t, end_r, end_h, end_b = (Signal(name=f"end_{v}") for v in ("n", "m", "t", "r", "h", "b"))
        halved = self.depthwise if self._halves == 2 else Const(0, 1)
        m.d.comb += [
            end_b.eq(self.block == self._blocks - 1),
            end_r.eq(self.row == self._rows - 1),
            end_h.eq(half | ~halved),
            end_t.eq(group + 1 >= groups),
            end_m.eq(mt + 1 >= self.m_tiles),
            end_n.eq(n + 1 >= self.n_tiles),
            groups.eq(Mux(end_m, self.t_last, self.t_count)),
            self.t_used.eq(groups << halved),
            self.t.eq(Mux(halved, Cat(half, group), group)),
            self.first.eq((group == 0) & (self.row == 0) & ~half & (self.block == 0)),
            self.ends.eq(end_b),
            self.last.eq(end_b & end_h & end_r & end_t),
            self.final.eq(end_m & end_n),
        ]
        with m.If(self.advance):
            m.d.sync += [
                self.block.eq(Mux(end_b, 0, self.block + 1)),
                self.channel.eq(self.channel + self._lanes),
                self.idx.eq(self.idx + 1),
            ]
            with m.If(end_b):
                m.d.sync += [half.eq(~end_h), self.channel.eq(tile_channel + Mux(end_h, 0, self._cols))]
            with m.If(end_b & end_h):
                m.d.sync += [self.row.eq(Mux(end_r, 0, self.row + 1)), self.idx.eq(tile_idx)]
            with m.If(end_b & end_h & end_r):
                m.d.sync += group.eq(Mux(end_t, 0, group + 1))
            with m.If(self.last):
                m.d.sync += [
                    mt.eq(Mux(end_m, 0, mt + 1)),
                    tile_pixel.eq(Mux(end_m, 0, tile_pixel + self.t_count * self._rows)),
                ]
            with m.If(self.last & end_m):
                channel, idx = tile_channel + (Const(self._cols) << halved), tile_idx + (Const(self._blocks) << halved)
                m.d.sync += [n.eq(n + 1), tile_channel.eq(channel), tile_idx.eq(idx)]
                m.d.sync += [self.channel.eq(channel), self.idx.eq(idx)]
        with m.If(self.load):
            counters = (n, mt, group, self.row, half, self.block, self.channel, self.idx)
            m.d.sync += [s.eq(0) for s in (*counters, tile_pixel, tile_channel, tile_idx)]
        self._place(m, tile_pixel, group)
        return m

    def _place(self, m: Module, tile_pixel: Signal, t: Signal) -> None:
        """Pixel of the row in the tile, and how many lanes of the beat are valid."""
        group, within = Signal(8), Signal(8)
        in_tile, in_channels = Signal.like(self.lanes), Signal.like(self.lanes)
        left_channels = Signal(signed(CHANNEL_BITS))
        m.d.comb += [
            group.eq(t >> self.ilv),
            within.eq(t & ~(Const(0xFF, 8) << self.ilv)[:8]),
            self.pixel.eq(tile_pixel + ((group * self._rows + self.row) << self.ilv) + within),
            self.inside.eq(self.pixel < self.m_count),
            in_tile.eq(self._lanes),
            left_channels.eq(self.channels - self.channel),
            in_channels.eq(Mux(left_channels >= self._lanes, self._lanes, Mux(left_channels < 0, 0, left_channels))),
        ]
        with m.If(self.block == self._blocks - 1):
            m.d.comb += in_tile.eq(self._cols - (self._blocks - 1) * self._lanes)
        with m.If(self.inside):
            m.d.comb += self.lanes.eq(Mux((self.channels == 0) | (in_tile < in_channels), in_tile, in_channels))
