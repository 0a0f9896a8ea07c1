"""The activation scratchpad and where views put pixels and channel bytes in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import Cause, DType

from .errors import Fault

__all__ = ["Scratchpad", "View"]


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor in the scratchpad, as a command names it."""

    base: int
    plane: int
    shift: int
    p0: int
    c0: int
    dtype: DType = DType.I8

    @classmethod
    def of(cls, fields: Mapping[str, int], prefix: str = "") -> "View":
        """The view whose fields start with `prefix`."""
        names = ("base", "plane", "shift", "p0", "c0")
        dtype = DType(fields.get(prefix + "type", DType.I8))
        return cls(**{n: fields[prefix + n] for n in names}, dtype=dtype)


class Scratchpad:
    """R banks of `bank_words` words of W bytes with their activation shifts, zero at first.

    `data` has shape [R, bank_words, W], `ka` [R, bank_words]; "flat" positions below are byte positions in `data`.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._banks = config.rows
        self._words = config.bank_words
        self._word_bytes = config.word_bytes
        self.data = np.zeros((self._banks, self._words, self._word_bytes), np.uint8)
        self.ka = np.zeros((self._banks, self._words), np.uint8)

    @property
    def flat(self) -> np.ndarray:
        """All bytes, one dimension."""
        return self.data.reshape(-1)

    def put(self, at: np.ndarray, values: np.ndarray | int) -> None:
        """Write bytes at flat positions; the activation shifts of their words become 0."""
        self.flat[at] = values
        if self.ka.any():
            self.ka.reshape(-1)[at // self._word_bytes] = 0

    def put_shifts(self, at: np.ndarray, values: np.ndarray) -> None:
        """Set the activation shifts of the words that hold flat positions."""
        self.ka.reshape(-1)[at // self._word_bytes] = values

    def locate(self, view: View, pixel: np.ndarray, byte: np.ndarray, used: np.ndarray | None = None) -> np.ndarray:
        """Flat positions of channel bytes `byte` (c0 not yet added) of pixels `pixel` (nor p0), broadcast.

        Where `used` is False nothing is checked and the position is 0.

        Raises:
            Fault: RANGE with the word address of the first used position (in C order) that is outside.
        """
        flat, bad, word = self.locate_unchecked(view, pixel, byte)
        if bad is None:
            return flat if used is None else np.where(used, flat, 0)
        if used is not None:
            bad, flat = np.broadcast_arrays(bad & used, np.where(used, flat, 0))
        if bad.any():
            raise Fault(Cause.RANGE, int(np.broadcast_to(word, bad.shape)[bad][0]) & 0xFFFFFFFF)
        return flat

    def locate_unchecked(
        self, view: View, pixel: np.ndarray, byte: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Flat positions, which of them are out of range (None: none), and the word addresses, all broadcast."""
        banks, words, width = self._banks, self._words, self._word_bytes
        p, c = np.asarray(pixel, np.int64) + view.p0, np.asarray(byte, np.int64) + view.c0
        group = p >> view.shift
        row = (group // banks << view.shift) + (p & ((1 << view.shift) - 1))
        column = c // width * view.plane
        word = view.base + row + column
        flat = (group % banks * words + row + view.base) * width + (column * width + c % width)
        if p.size == 0 or c.size == 0 or (p.min() >= 0 and view.base + int(row.max()) + int(column.max()) < words):
            return flat, None, word
        return flat, (p < 0) | (word >= words), word
