"""One flat numbering of every byte, element and register a command can touch, and where views put their bytes."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from headrace.config import NpuConfig

__all__ = ["Ids", "Space", "unite"]

Ids = npt.NDArray[np.int64]


def unite(parts: Iterable[Ids]) -> Ids:
    """Sorted, distinct ids of all parts."""
    flat = [np.ravel(part) for part in parts]
    return np.unique(np.concatenate(flat)) if flat else np.zeros(0, np.int64)


class Space:
    """Resource ids of a machine and its DDR image: scratchpad bytes, then activation shifts of scratchpad words, 32-bit
    elements of column memories, of contexts and of group offset shifts, scalar registers, and bytes of DDR
    [ddr_base, ddr_base + ddr_bytes)."""

    def __init__(self, config: NpuConfig, *, ddr_base: int, ddr_bytes: int) -> None:
        self.config = config
        self.ddr_base = ddr_base
        self.ddr_bytes = ddr_bytes
        self._shifts = config.spad_bytes
        self._columns = self._shifts + config.rows * config.bank_words
        self._contexts = self._columns + config.columns * config.column_words * config.vector_lanes
        self._offset_shifts = self._contexts + config.contexts * config.columns * 4
        self._scalars = self._offset_shifts + config.kc_words * -(-config.cols // 8)
        self._ddr = self._scalars + config.scalars

    @property
    def size(self) -> int:
        """Number of ids."""
        return self._ddr + self.ddr_bytes

    @property
    def first_ddr(self) -> int:
        """Id of the first DDR byte."""
        return self._ddr

    def spad(self, fields: dict[str, int], prefix: str, pixel: Ids, channel: Ids) -> Ids:
        """Ids of channel bytes of pixels of the view whose fields start with `prefix` (p0 and c0 are not added).

        Raises:
            ValueError: when the machine would report RANGE.
        """
        ids: Ids = (
            self._word(fields, prefix, pixel, channel) * self.config.word_bytes + channel % self.config.word_bytes
        )
        return ids

    def shift(self, fields: dict[str, int], prefix: str, pixel: Ids, channel: Ids) -> Ids:
        """Ids of the activation shifts of the words that hold channel bytes of pixels; otherwise as `spad`."""
        return self._shifts + self._word(fields, prefix, pixel, channel)

    def with_shifts(self, ids: Ids) -> Ids:
        """Ids of scratchpad bytes, and of the activation shifts of their words."""
        return unite([ids, self._shifts + ids // self.config.word_bytes])

    def _word(self, fields: dict[str, int], prefix: str, pixel: Ids, channel: Ids) -> Ids:
        config = self.config
        s = 1 << fields[f"{prefix}shift"]
        plane = channel // config.word_bytes * fields[f"{prefix}plane"]
        address = fields[f"{prefix}base"] + plane + pixel // (s * config.rows) * s + pixel % s
        if address.size and (address.max() >= config.bank_words or pixel.min() < 0 or channel.min() < 0):
            raise ValueError("view reaches outside the scratchpad")
        word: Ids = pixel // s % config.rows * config.bank_words + address
        return word

    def column(self, element: Ids) -> Ids:
        """Ids of flat column memory elements."""
        return self._within(element, self._columns, self._contexts)

    def column_word(self, column: int, word: Ids) -> Ids:
        """Ids of the L elements of words of one column's memory."""
        lanes = self.config.vector_lanes
        element = (column * self.config.column_words + np.asarray(word, np.int64))[..., None] * lanes
        return self.column(element + np.arange(lanes))

    def context(self, element: Ids) -> Ids:
        """Ids of flat context elements."""
        return self._within(element, self._contexts, self._offset_shifts)

    def context_number(self, context: int) -> Ids:
        """Ids of every column's words of one context."""
        count = self.config.columns * 4
        return self.context(context * count + np.arange(count))

    def offset_shift(self, element: Ids) -> Ids:
        """Ids of flat elements of the table of group offset shifts."""
        return self._within(element, self._offset_shifts, self._scalars)

    def scalar(self, register: int) -> Ids:
        """Id of a scalar register."""
        return np.array([self._scalars + register])

    def ddr(self, address: Ids) -> Ids:
        """Ids of DDR bytes."""
        return self._within(np.asarray(address, np.int64) - self.ddr_base, self._ddr, self.size)

    @staticmethod
    def _within(index: Ids, first: int, end: int) -> Ids:
        if index.size and (index.min() < 0 or index.max() >= end - first):
            raise ValueError("access outside of its memory")
        return index + first
