"""Accumulator tiles: the loops that MAC and EPILOGUE share, and the queue between them."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import Cause

from .errors import Fault, SequenceError

__all__ = ["Accumulators", "TileShape"]


@dataclass(frozen=True)
class TileShape:
    """The tile loops; `halves` is the accumulators a row has for each row group: H in depthwise mode, otherwise 1."""

    n_tiles: int
    m_tiles: int
    t_count: int
    t_last: int
    interleave: int
    rows: int
    halves: int

    @classmethod
    def of(cls, f: Mapping[str, int], config: NpuConfig) -> "TileShape":
        halves = config.halves if f["depthwise"] else 1
        return cls(f["n_tiles"], f["m_tiles"], f["t_count"], f["t_last"], 1 << f["ilv"], config.rows, halves)

    def row_groups(self, m_tile: int) -> int:
        """Row groups of an m tile."""
        return self.t_last if m_tile == self.m_tiles - 1 else self.t_count

    @cached_property
    def pixels(self) -> np.ndarray:
        """Output pixel of every row of the m tiles, in order mt, t, r (int64)."""
        i, rows = self.interleave, self.rows
        t = np.arange((self.m_tiles - 1) * self.t_count + self.t_last, dtype=np.int64)
        tile = np.minimum(t // self.t_count, self.m_tiles - 1)
        t -= tile * self.t_count
        first = tile * self.t_count * rows + t // i * (rows * i) + t % i
        return (first[:, None] + np.arange(rows) * i).reshape(-1)

    def rows_of(self, m_tile: int) -> slice:
        """Where the rows of an m tile are in `pixels`."""
        start = m_tile * self.t_count * self.rows
        return slice(start, start + self.row_groups(m_tile) * self.rows)


class Accumulators:
    """Finished accumulator tiles between MAC and EPILOGUE, oldest first.

    A tile is int32 [row groups * H, R, C], accumulator t*H + h being half h of row group t.
    """

    def __init__(self) -> None:
        self._tiles: deque[np.ndarray] = deque()

    def clear(self) -> None:
        self._tiles.clear()

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, number: int) -> np.ndarray:
        """A tile, the oldest is number 0."""
        return self._tiles[number]

    def push(self, sums: np.ndarray, shape: TileShape) -> None:
        """Append the tiles of a MAC command: int32 [n_tiles, rows of all m tiles, H, C]."""
        for plane in sums:
            for m in range(shape.m_tiles):
                tile = plane[shape.rows_of(m)].reshape(-1, shape.rows, *plane.shape[1:])
                self._tiles.append(tile.swapaxes(1, 2).reshape(-1, shape.rows, plane.shape[-1]))

    def take(self, shape: TileShape) -> np.ndarray:
        """The tiles an EPILOGUE drains, as in `push`.

        Raises:
            Fault: TILE with the accumulators a row of the first tile has, when the EPILOGUE drains another number.
            SequenceError: when no MAC command produced the tiles.
        """
        out = []
        for _ in range(shape.n_tiles):
            for m in range(shape.m_tiles):
                if not self._tiles:
                    raise SequenceError("EPILOGUE drains more accumulator tiles than MAC commands produced")
                tile = self._tiles.popleft()
                if len(tile) != shape.row_groups(m) * shape.halves:
                    raise Fault(Cause.TILE, len(tile))
                out.append(tile.reshape(-1, shape.halves, *tile.shape[1:]).swapaxes(1, 2))
        cols = out[0].shape[-1]
        return np.concatenate(out).reshape(shape.n_tiles, -1, shape.halves, cols)
