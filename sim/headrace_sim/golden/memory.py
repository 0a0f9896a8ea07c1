"""DDR behind the host's address windows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headrace.isa import Cause

from .errors import Fault

__all__ = ["ADDRESS_MASK", "PAGE_BYTES", "Ddr", "Window"]

ADDRESS_MASK = (1 << 40) - 1
PAGE_BYTES = 4096


class Window(NamedTuple):
    """Addresses open to the machine, in pages of 4 KiB as in the window registers: base <= page < limit."""

    base: int
    limit: int
    read: bool = True
    write: bool = True

    def grants(self, write: bool) -> bool:
        return self.write if write else self.read


class Ddr:
    """`data` (bytes) at byte address `base`; the machine's accesses are checked against `windows`, the host's not."""

    def __init__(self, *, base: int, size: int) -> None:
        self.base = base
        self.data = np.zeros(size, np.uint8)
        self.windows: list[Window] = []

    def check_windows(self, limit: int) -> None:
        """Raise ValueError when there are more than `limit` windows or one is open where there is no memory."""
        if len(self.windows) > limit:
            raise ValueError(f"{len(self.windows)} windows, the machine has {limit}")
        for w in self.windows:
            inside = self.base <= w.base * PAGE_BYTES and w.limit * PAGE_BYTES <= self.base + len(self.data)
            if w.limit > w.base and not inside:
                raise ValueError(f"{w} is open on addresses without memory")

    def first_refused(self, starts: np.ndarray, length: int, *, write: bool) -> tuple[int, int] | None:
        """Segment number (in order of the flattened `starts`) and byte offset of the first byte no window opens."""
        flat = starts.reshape(-1)
        if len(flat) and self._within_one(int(flat.min()), int(flat.max()) + length, write=write):
            return None
        granted = np.zeros(len(flat), bool)
        for w in self.windows:
            if w.grants(write):
                granted |= (flat >= w.base * PAGE_BYTES) & (flat + length <= w.limit * PAGE_BYTES)
        for segment in np.flatnonzero(~granted):  # outside, or across the border of two windows
            start = int(flat[segment])
            for page in range(start // PAGE_BYTES, (start + length - 1) // PAGE_BYTES + 1):
                if not any(w.grants(write) and w.base <= page < w.limit for w in self.windows):
                    return int(segment), max(page * PAGE_BYTES - start, 0)
        return None

    def _within_one(self, start: int, end: int, *, write: bool) -> bool:
        """Whether one window opens all of [start, end)."""
        return any(
            w.base * PAGE_BYTES <= start and end <= w.limit * PAGE_BYTES and w.grants(write) for w in self.windows
        )

    def require(self, start: int, length: int) -> None:
        """Raise Fault WINDOW at the first byte of [start, start + length) that may not be read."""
        if self._within_one(start, start + length, write=False):
            return
        refused = self.first_refused(np.array([start]), length, write=False)
        if refused is not None:
            raise Fault(Cause.WINDOW, start + refused[1])

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Bytes of the segments, shape `[*starts.shape, length]`."""
        if starts.size == 1:
            at = int(starts.reshape(-1)[0]) - self.base
            return self.data[at : at + length].reshape(*starts.shape, length)
        return self.data[starts[..., None] - self.base + np.arange(length)]

    def scatter(self, starts: np.ndarray, values: np.ndarray) -> None:
        """Write segments `values[*starts.shape, length]`; where they overlap the last wins."""
        self.data[starts[..., None] - self.base + np.arange(values.shape[-1])] = values

    def span(self, address: int, size: int) -> slice:
        """Where the host's bytes [address, address + size) are in `data`.

        Raises:
            ValueError: when there is no memory at some of them.
        """
        at = address - self.base
        if at < 0 or at + size > len(self.data):
            raise ValueError(f"no memory at {address:#x} .. {address + size:#x}")
        return slice(at, at + size)


def windows_over(base: int, size: int) -> Sequence[Window]:
    """One window, read and write, over every page that [base, base + size) fills."""
    return [Window(-(-base // PAGE_BYTES), (base + size) // PAGE_BYTES)]
