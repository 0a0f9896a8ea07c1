"""Weight ring: a queue of weight entries between WEIGHT and MAC commands, unbounded in the sequential meaning."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.isa import Cause

from .errors import Fault, SequenceError

__all__ = ["Entries", "WeightRing"]


@dataclass(frozen=True)
class Entries:
    """Weight entries: codes uint8 [..., C, W] and group scales uint8 [..., C, G, 2], sd then sm."""

    codes: np.ndarray
    scales: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, key: Any) -> "Entries":
        return Entries(self.codes[key], self.scales[key])

    def reshape(self, *shape: int) -> "Entries":
        """A row of entries in another shape."""
        return Entries(*(a.reshape(*shape, *a.shape[1:]) for a in (self.codes, self.scales)))

    @classmethod
    def join(cls, parts: "list[Entries]") -> "Entries":
        if len(parts) == 1:
            return parts[0]
        return cls(np.concatenate([p.codes for p in parts]), np.concatenate([p.scales for p in parts]))


class WeightRing:
    """Queue of entries with tags, oldest first."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[Entries, int]] = deque()

    def clear(self) -> None:
        self._blocks.clear()

    def __len__(self) -> int:
        return sum(len(entries) for entries, _ in self._blocks)

    def push(self, entries: Entries, tag: int) -> None:
        """Append a row of entries."""
        self._blocks.append((entries, tag))

    def take(self, count: int, tag: int, *, hold: bool) -> Entries:
        """The oldest entries, which leave the ring unless `hold`.

        Raises:
            Fault: RING_TAG with the first tag that is not `tag`.
            SequenceError: when the ring holds fewer entries.
        """
        parts: list[Entries] = []
        missing = count
        while missing:
            if not self._blocks:
                raise SequenceError(f"MAC needs {count} weight entries, the ring holds {count - missing}")
            block, found = self._blocks.popleft()
            if found != tag:
                raise Fault(Cause.RING_TAG, found)
            parts.append(block[:missing])
            if len(block) > missing:
                self._blocks.appendleft((block[missing:], found))
            missing -= len(parts[-1])
        entries = Entries.join(parts)
        if hold:
            self._blocks.appendleft((entries, tag))
        return entries
