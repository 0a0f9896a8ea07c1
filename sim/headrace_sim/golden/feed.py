"""The activation side of a MAC command: which scratchpad words every row sees in every word of the reduction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace.isa import Cause

from .errors import Fault
from .scratchpad import Scratchpad, View
from .tiles import TileShape

__all__ = ["Feed", "Words"]

_FOLDED_PIXEL = 4  # bytes of a pixel when kernel columns are folded into the word
_CHUNK = 1 << 22  # bytes gathered at a time


@dataclass(frozen=True)
class Words:
    """Words gathered: rows int64 [rows] of the command's (those of real pixels), data uint8 [rows, P, W], their
    activation shifts ka uint8 [rows, P].
    """

    rows: np.ndarray
    data: np.ndarray
    ka: np.ndarray


class Feed:
    """Gathers the words of a MAC command.

    With fold a pixel has 4 bytes and G = 2K / 4 of them lie in a word: image pixel p (in_p0 counts these) is bytes
    4 (p mod G) .. + 3 of pixel p div G of the view. Unit u of word (ky, kb) is the pixel under kernel column
    kb * G + u. In depthwise mode the words of all n tiles are gathered at once, n being the innermost.
    """

    def __init__(self, f: Mapping[str, int], pad: Scratchpad, shape: TileShape, config: NpuConfig) -> None:
        self._f = f
        self._pad = pad
        self._shape = shape
        self._width = config.word_bytes
        view = View.of(f, "in_")
        # p0 counts pixels, which fold packs into words; the low bits of c0 are ignored
        self._view = replace(view, p0=0, c0=view.c0 // self._width * self._width)
        self._unit = _FOLDED_PIXEL if f["fold"] else self._width  # bytes of a word that one input pixel fills
        self._units = self._width // self._unit
        self._columns = -(-f["kw"] // self._units)
        if f["depthwise"]:
            self._planes = f["n_tiles"]
        else:
            self._planes = 1 if f["fold"] else f["cw"]
        self._entry_words = f["kw"] * f["n_tiles"] if f["depthwise"] else Precision(f["mode"]).words
        self.words = f["kh"] * self._columns * self._planes
        self._pixels = shape.pixels

    def batches(self, *, resident: bool) -> Iterator[tuple[int, slice]]:
        """(first m tile, rows) cut between m tiles so that what is gathered stays small; a tile each if not
        `resident`, for then every tile has its own entries.
        """
        rows = self._shape.t_count * self._shape.rows
        step = max(1, _CHUNK // (self.words * self._width * rows)) if resident else 1
        for first in range(0, self._shape.m_tiles, step):
            last = min(first + step, self._shape.m_tiles) - 1
            yield first, slice(first * rows, self._shape.rows_of(last).stop)

    def gather(self, rows: slice, group: int) -> Words:
        """The words that the n tiles of convolution group `group` see.

        Raises:
            Fault: RANGE at the first word outside, in order of m tiles, entries, row groups, words, rows.
        """
        f = self._f
        at_rows = rows.start + np.flatnonzero(self._pixels[rows] < f["m_count"])
        m = self._pixels[at_rows]
        kx = np.arange(self._columns * self._units).reshape(self._columns, self._units)
        iy = (m // f["out_w"] * f["stride_y"] - f["pad_top"])[:, None] + np.arange(f["kh"]) * f["dil_y"]
        ix = (m % f["out_w"] * f["stride_x"] - f["pad_left"])[:, None, None] + kx * f["dil_x"]
        inside_y = (iy >= 0) & (iy < f["in_h"])
        inside_x = (ix >= 0) & (ix < f["in_w"])
        inside = (inside_y[:, :, None, None] & inside_x[:, None])[:, :, :, None]  # [row, ky, kb, q, unit]
        pixel = (iy[:, :, None, None] * f["in_w"] + ix[:, None] + f["in_p0"])[:, :, :, None]
        plane = np.arange(self._planes) + group * f["group_planes"]
        byte = (plane * self._width)[:, None] + pixel % self._units * self._unit
        at, bad, word = self._pad.geometry.locate(self._view, pixel // self._units, byte)
        if bad is not None:
            self._check(at_rows, bad & inside, np.broadcast_to(word, at.shape))
        outside = None if inside.all() else np.broadcast_to(~inside, at.shape)
        if outside is not None:
            at = np.where(outside, 0, at)
        data = self._pad.flat.reshape(-1, self._unit).take(at // self._unit, axis=0)
        ka = self._pad.ka.reshape(-1).take(at[..., -1] // self._width)
        if outside is not None:
            data[outside] = f["pad_value"]
            ka[outside[..., -1]] = 0
        return Words(at_rows, data.reshape(len(m), self.words, self._width), ka.reshape(len(m), self.words))

    def _check(self, rows: np.ndarray, bad: np.ndarray, address: np.ndarray) -> None:
        """Raise for the first of `bad` [row, ky, kb, q, unit] in the order of the machine's loops."""
        where = np.flatnonzero(bad)
        if not len(where):
            return
        row, word = np.divmod(where // self._units, self.words)
        t, r = np.divmod(rows[row], self._shape.rows)
        tile = np.minimum(t // self._shape.t_count, self._shape.m_tiles - 1)
        first = np.lexsort((where % self._units, r, word, t, word // self._entry_words, tile))[0]
        raise Fault(Cause.RANGE, int(address.reshape(-1)[where[first]]) & 0xFFFFFFFF)
