"""The MAC array: tiles of implicit-GEMM convolutions, computed exactly in BLAS."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import Cause

from .errors import Fault, SequenceError
from .ring import WeightRing
from .scratchpad import Scratchpad, View

__all__ = ["Accumulators", "TileShape", "mac"]

Fields = Mapping[str, int]

_FOLDED_PIXEL = 4  # bytes of a pixel when kernel columns are folded into the word
_CHUNK = 1 << 22  # activation codes gathered at a time
_PRODUCT_BITS = 14  # |int8 x int8| <= 2^14
_FLOAT32_TERMS = 1 << (24 - _PRODUCT_BITS)  # products whose every partial sum is exact in float32
_SAFE_TERMS = 1 << (31 - _PRODUCT_BITS)  # fewer products than this cannot overflow an int32


@dataclass(frozen=True)
class TileShape:
    """The tile loops that MAC and EPILOGUE share."""

    n_tiles: int
    m_tiles: int
    t_count: int
    t_last: int
    interleave: int
    rows: int

    @classmethod
    def of(cls, f: Fields, config: NpuConfig) -> "TileShape":
        return cls(f["n_tiles"], f["m_tiles"], f["t_count"], f["t_last"], 1 << f["ilv"], config.rows)

    def row_groups(self, m_tile: int) -> int:
        """Row groups of an m tile."""
        return self.t_last if m_tile == self.m_tiles - 1 else self.t_count

    @property
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
    """Finished accumulator tiles between MAC and EPILOGUE, oldest first; a tile is int32 [row groups * R, C]."""

    def __init__(self, config: NpuConfig) -> None:
        self._rows = config.rows
        self._tiles: deque[np.ndarray] = deque()

    def clear(self) -> None:
        self._tiles.clear()

    def __len__(self) -> int:
        return len(self._tiles)

    def push(self, tiles: np.ndarray, shape: TileShape) -> None:
        """Append the tiles of a MAC command: int32 [n_tiles, rows of all m tiles, C]."""
        for plane in tiles:
            self._tiles.extend(plane[shape.rows_of(m)] for m in range(shape.m_tiles))

    def take(self, shape: TileShape) -> np.ndarray:
        """The tiles an EPILOGUE drains, as in `push`.

        Raises:
            Fault: TILE with the row groups of the first tile of another shape.
            SequenceError: when no MAC command produced the tiles.
        """
        out = []
        for _ in range(shape.n_tiles):
            for m in range(shape.m_tiles):
                if not self._tiles:
                    raise SequenceError("EPILOGUE drains more accumulator tiles than MAC commands produced")
                tile = self._tiles.popleft()
                if len(tile) != shape.row_groups(m) * self._rows:
                    raise Fault(Cause.TILE, len(tile) // self._rows)
                out.append(tile)
        return np.concatenate(out).reshape(shape.n_tiles, -1, out[0].shape[1])


def mac(f: Fields, pad: Scratchpad, ring: WeightRing, accumulators: Accumulators, config: NpuConfig) -> None:
    """Execute a MAC command.

    Raises:
        Fault: RANGE, RING_TAG, OVERFLOW.
        SequenceError: when weight entries are missing, or the input view does not start on a word.
    """
    shape = TileShape.of(f, config)
    feed = _Feed(f, pad, shape, config)
    resident = bool(f["hold"] or f["replay"])
    entries = shape.n_tiles * feed.entries * (1 if resident else shape.m_tiles)
    codes = ring.take(entries, f["tag"], hold=bool(f["hold"])).view(np.int8)
    # [n, m or 1, E, C, W] -> [n, m or 1, C, E * W]
    codes = codes.reshape(shape.n_tiles, -1, feed.entries, config.cols, config.word_bytes).transpose(0, 1, 3, 2, 4)
    weights = codes.reshape(*codes.shape[:3], -1)
    out = np.empty((shape.n_tiles, len(feed.pixels), config.cols), np.int32)
    for first in range(0, shape.n_tiles, feed.group_tiles):
        group = slice(first, min(first + feed.group_tiles, shape.n_tiles))
        if resident:
            for rows in feed.chunks(slice(0, len(feed.pixels))):
                out[group, rows] = _tile(feed.gather(first, rows), weights[group, 0], config.word_bytes)
            continue
        for m in range(shape.m_tiles):
            for rows in feed.chunks(shape.rows_of(m)):
                out[group, rows] = _tile(feed.gather(first, rows), weights[group, m], config.word_bytes)
    accumulators.push(out, shape)


class _Feed:
    """The activation side of a MAC command: which bytes every row sees in every entry.

    With fold a pixel has 4 bytes and G = 2K / 4 of them lie in a word: image pixel p (in_p0 counts these) is bytes
    4 (p mod G) .. + 3 of pixel p div G of the view. Unit u of entry (ky, kb) is the pixel under kernel column
    kb * G + u.
    """

    def __init__(self, f: Fields, pad: Scratchpad, shape: TileShape, config: NpuConfig) -> None:
        self._f = f
        self._pad = pad
        self._view = replace(View.of(f, "in_"), p0=0)  # p0 counts pixels, which fold packs into words
        self._width = config.word_bytes
        self._unit = _FOLDED_PIXEL if f["fold"] else config.word_bytes  # bytes of an entry that one input pixel fills
        if self._view.c0 % self._width:
            raise SequenceError(f"in_c0 must be a multiple of {self._width}")
        self._units = config.word_bytes // self._unit
        self._columns = -(-f["kw"] // self._units)
        self.entries = f["kh"] * self._columns * (1 if f["fold"] else f["cw"])
        self.group_tiles = f["group_tiles"] or shape.n_tiles
        self.pixels = shape.pixels

    def chunks(self, rows: slice) -> Iterator[slice]:
        """`rows` cut so that the gathered codes stay small."""
        step = max(1, _CHUNK // (self.entries * self._width))
        for start in range(rows.start, rows.stop, step):
            yield slice(start, min(start + step, rows.stop))

    def gather(self, n_tile: int, rows: slice) -> np.ndarray:
        """Codes int8 [rows, E * W] that an n tile's group sees, in order of entries.

        Raises:
            Fault: RANGE at the first word outside, in order of entries, then rows.
        """
        f = self._f
        m = self.pixels[rows]
        ky = np.arange(f["kh"])[:, None, None, None]
        kx = np.arange(self._columns * self._units).reshape(self._columns, 1, self._units)
        y0 = m // f["out_w"] * f["stride_y"] - f["pad_top"]
        x0 = m % f["out_w"] * f["stride_x"] - f["pad_left"]
        iy = y0[:, None] + ky * f["dil_y"]  # [ky, kb, row, unit]
        ix = x0[:, None] + kx * f["dil_x"]
        real = (m < f["m_count"])[:, None]
        inside = (iy >= 0) & (iy < f["in_h"]) & (ix >= 0) & (ix < f["in_w"]) & real
        plane = np.arange(1 if f["fold"] else f["cw"]) + n_tile // self.group_tiles * f["group_planes"]
        byte = (plane * self._width)[:, None, None]  # [q, row, unit]
        pixel = (iy * f["in_w"] + ix + f["in_p0"])[:, :, None, :, :]
        byte = byte + pixel % self._units * self._unit
        at = self._pad.locate(self._view, pixel // self._units, byte, inside[:, :, None, :, :])
        codes = self._pad.flat.view(np.int8).reshape(-1, self._unit)[at // self._unit]
        used = np.broadcast_to(inside[:, :, None, :, :], at.shape)
        codes[~used] = np.uint8(f["pad_value"]).view(np.int8)
        codes[np.broadcast_to(~real, at.shape)] = 0
        return np.moveaxis(codes, 3, 0).reshape(len(m), -1)


def _tile(a: np.ndarray, weights: np.ndarray, entry: int) -> np.ndarray:
    """Sums int32 [n, rows, C] of codes int8 [rows, terms] with weights int8 [n, C, terms].

    Raises:
        Fault: OVERFLOW when a running sum, judged after every entry, leaves int32.
    """
    n, cols, terms = weights.shape
    dtype: type[np.floating] = np.float32 if terms <= _FLOAT32_TERMS else np.float64
    left: np.ndarray = a.astype(dtype)
    right: np.ndarray = weights.reshape(n * cols, terms).astype(dtype)
    if terms >= _SAFE_TERMS and (np.abs(left) @ np.abs(right).T).max() >= 2.0**31:
        _check_running_sums(left, right, entry)
    return (left @ right.T).astype(np.int32).reshape(len(a), n, cols).transpose(1, 0, 2)


def _check_running_sums(left: np.ndarray, right: np.ndarray, entry: int) -> None:
    total = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], entry):
        total += left[:, start : start + entry] @ right[:, start : start + entry].T
        if total.max() >= 2.0**31 or total.min() < -(2.0**31):
            raise Fault(Cause.OVERFLOW, 0)
