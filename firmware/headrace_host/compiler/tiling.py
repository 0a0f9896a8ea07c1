"""Shapes of matrix products and convolutions, and how they are cut into strips and tiles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.config import NpuConfig
from headrace_host.compiler.packing import entries_per_tile, fold_taps
from headrace_host.models.graph import Padding, Pair

COMMAND_CYCLES = 150
"""Latency of a LOAD from issue to completion beyond its data, which strips must hide too."""


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """A convolution (a matrix product is a 1x1 one). ``padding`` is explicit; extents are in pixels and channels."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding

    @property
    def pointwise(self) -> bool:
        """Every output pixel reads the input pixel of the same number, and no other."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding)

    def normalised(self) -> ConvShape:
        """The same work with rows of one pixel when pixels are independent, so that strips may end anywhere."""
        if not self.pointwise:
            return self
        return replace(self, in_h=self.in_h * self.in_w, in_w=1, out_h=self.out_h * self.out_w, out_w=1)

    def input_rows(self, first: int, last: int) -> tuple[int, int]:
        """Input rows ``[start, end)`` that output rows ``[first, last)`` read; padding is outside of them."""
        start = first * self.stride.y - self.padding.top
        end = (last - 1) * self.stride.y - self.padding.top + (self.kernel.y - 1) * self.dilation.y + 1
        return max(0, min(start, self.in_h - 1)), max(1, min(end, self.in_h))

    def strip_inputs(self, rows: int) -> int:
        """Most input rows that ``rows`` output rows read."""
        return min(self.in_h, (rows - 1) * self.stride.y + (self.kernel.y - 1) * self.dilation.y + 1)

    def folds(self, config: NpuConfig) -> bool:
        """Whether folding kernel columns into a word saves weight entries."""
        if self.in_c > 4 or self.dilation.x != 1 or fold_taps(config) < 1:
            return False
        folded, plain = (
            entries_per_tile(config, self.kernel.y, self.kernel.x, self.in_c, fold=fold) for fold in (True, False)
        )
        return folded < plain


@dataclass(frozen=True)
class Tiles:
    """How the pixels of one MAC command fall into tiles."""

    m_tiles: int
    t_count: int
    t_last: int


def cut_tiles(config: NpuConfig, pixels: int, interleave: int, accs: int) -> Tiles:
    """Equal tiles of at most ``accs`` row groups, the last one smaller; they come in multiples of 2**interleave."""
    unit = 1 << interleave
    groups = -(-pixels // (config.rows * unit))  # in units of interleaved groups
    per_tile = max(1, accs // unit)
    m_tiles = -(-groups // per_tile)
    t_count = -(-groups // m_tiles)
    m_tiles = -(-groups // t_count)
    return Tiles(m_tiles, t_count * unit, (groups - (m_tiles - 1) * t_count) * unit)


def strip_rows(total: int, growth: Sequence[int], tail: Sequence[int], unit: int) -> list[tuple[int, int]]:
    """Cut ``total`` rows into strips of the sizes in ``growth``, then equal ones no larger, and those of ``tail``.

    ``tail`` has the last strip first; what does not fit behind the first strip is left out. The last one takes what
    else would leave an incomplete group of ``unit`` rows before it.
    """
    ends = [total]
    for rows in tail:
        ragged = (total - rows) % unit if len(ends) == 1 else 0
        if growth[0] <= ends[-1] - rows - ragged:
            ends.append(ends[-1] - rows - ragged)
    bounds = [0]
    for rows in growth[:-1]:
        bounds.append(min(bounds[-1] + rows, ends[-1]))
    rest = ends[-1] - bounds[-1]
    equal = -(-rest // max(1, -(-rest // growth[-1])))
    equal = max(1, min(equal + -equal % unit, growth[-1]))
    while bounds[-1] < ends[-1]:
        bounds.append(min(bounds[-1] + equal, ends[-1]))
    return list(itertools.pairwise(sorted({*bounds, *ends})))


def shrinking_strips(*, last: int, largest: int, compute: float, store: float, unit: int) -> list[int]:
    """Sizes of the last strips, the last one first: each is stored while the one behind it computes.

    ``compute`` and ``store`` are cycles of a row. Sizes but the first are multiples of ``unit`` rows.
    """
    sizes = [last]
    while sizes[-1] < largest and len(sizes) < 4:
        rows = int(sizes[-1] * max(2.0, compute / store))
        rows -= rows % unit
        if rows <= sizes[-1] or rows >= largest:
            break
        sizes.append(rows)
    return sizes


def growing_strips(*, first: int, largest: int, compute: float, load: float, busy: float, unit: int) -> list[int]:
    """Sizes of strips, each of which can be loaded while the one before it computes.

    ``compute`` and ``load`` are cycles of a row; ``busy`` are cycles for which something else takes the bus during the
    first strip (weights, say). Sizes are multiples of ``unit`` rows where they exceed it.
    """
    sizes = [min(first, largest)]
    budget = sizes[0] * compute - busy
    while sizes[-1] < largest:
        rows = int((budget - COMMAND_CYCLES) / load)
        rows -= rows % unit if rows > unit else 0
        if rows < sizes[-1]:
            rows = 2 * sizes[-1]  # loading is the bottleneck: small strips would only add commands
        sizes.append(min(max(rows, sizes[-1] + unit), largest))
        budget = sizes[-1] * compute
    return sizes
