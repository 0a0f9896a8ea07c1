"""The activation scratchpad and where views put pixels and channel bytes in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DType

__all__ = ["Geometry", "Scratchpad", "View"]


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


class Geometry(NamedTuple):
    """Banks (one a row of the MAC array), words of a bank, bytes of a word; flat positions are bytes in this order."""

    banks: int
    words: int
    word_bytes: int

    @classmethod
    def of(cls, config: NpuConfig) -> "Geometry":
        return cls(config.rows, config.bank_words, config.word_bytes)

    def locate(
        self, view: View, pixel: np.ndarray, byte: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Flat positions of channel bytes `byte` (c0 not yet added) of pixels `pixel` (nor p0), which of them are out
        of range (None: none), and the word addresses, all broadcast.
        """
        banks, words, width = self
        p, c = np.asarray(pixel, np.int64) + view.p0, np.asarray(byte, np.int64) + view.c0
        group = p >> view.shift
        row = (group // banks << view.shift) + (p & ((1 << view.shift) - 1))
        column = c // width * view.plane
        word = view.base + row + column
        flat = (group % banks * words + row + view.base) * width + (column * width + c % width)
        if p.size == 0 or c.size == 0 or (p.min() >= 0 and view.base + int(row.max()) + int(column.max()) < words):
            return flat, None, word
        return flat, (p < 0) | (word >= words), word


class Scratchpad:
    """The words with their activation shifts, zero at first: `data` [banks, words, bytes], `ka` [banks, words]."""

    def __init__(self, config: NpuConfig) -> None:
        self.geometry = Geometry.of(config)
        self.data = np.zeros(self.geometry, np.uint8)
        self.ka = np.zeros(self.geometry[:2], np.uint8)

    @property
    def flat(self) -> np.ndarray:
        """All bytes, one dimension."""
        return self.data.reshape(-1)

    def put(self, at: np.ndarray, values: np.ndarray | int) -> None:
        """Write bytes at flat positions, or wider elements at positions that count elements of their size; the
        activation shifts of their words become 0.
        """
        dtype = values.dtype if isinstance(values, np.ndarray) else np.dtype(np.uint8)
        self.flat.view(dtype)[at] = values
        if self.ka.any():
            self.ka.reshape(-1)[at // (self.geometry.word_bytes // dtype.itemsize)] = 0

    def put_shifts(self, at: np.ndarray, values: np.ndarray) -> None:
        """Set the activation shifts of the words that hold flat positions."""
        self.ka.reshape(-1)[at // self.geometry.word_bytes] = values
