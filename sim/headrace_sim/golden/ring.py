"""Weight ring: a queue of weight entries between WEIGHT and MAC commands, unbounded in the sequential meaning."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from headrace.isa import Cause

from .errors import Fault, SequenceError

__all__ = ["WeightRing"]


@dataclass(frozen=True)
class _Block:
    """Consecutive entries of one tag: codes uint8 [entries, C, W]."""

    codes: np.ndarray
    tag: int


class WeightRing:
    """Queue of entries, oldest first."""

    def __init__(self) -> None:
        self._blocks: deque[_Block] = deque()

    def clear(self) -> None:
        self._blocks.clear()

    def __len__(self) -> int:
        return sum(len(b.codes) for b in self._blocks)

    def push(self, codes: np.ndarray, tag: int) -> None:
        """Append entries [entries, C, W]."""
        self._blocks.append(_Block(codes, tag))

    def take(self, entries: int, tag: int, *, hold: bool) -> np.ndarray:
        """Codes [entries, C, W] of the oldest entries, which leave the ring unless `hold`.

        Raises:
            Fault: RING_TAG with the first tag that is not `tag`.
            SequenceError: when the ring holds fewer entries.
        """
        parts: list[np.ndarray] = []
        missing = entries
        while missing:
            if not self._blocks:
                raise SequenceError(f"MAC needs {entries} weight entries, the ring holds {entries - missing}")
            block = self._blocks.popleft()
            if block.tag != tag:
                raise Fault(Cause.RING_TAG, block.tag)
            parts.append(block.codes[:missing])
            if len(block.codes) > missing:
                self._blocks.appendleft(_Block(block.codes[missing:], tag))
            missing -= len(parts[-1])
        codes = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if hold:
            self._blocks.appendleft(_Block(codes, tag))
        return codes
