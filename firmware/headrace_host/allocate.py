"""Allocation of DDR (bump) and of scratchpad words (first fit with release)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.config import NpuConfig
from headrace_host.errors import CompileError

DDR_ALIGNMENT = 64
"""Bytes; at least a beat of every machine."""


@dataclass
class DdrAllocator:
    """Hands out DDR addresses from ``base`` upwards, each aligned to `DDR_ALIGNMENT`; nothing is given back."""

    base: int
    limit: int
    top: int = -1

    def __post_init__(self) -> None:
        self.top = max(self.top, self.base)

    def allocate(self, size: int, what: str) -> int:
        """Address of ``size`` bytes for ``what``."""
        address = -(-self.top // DDR_ALIGNMENT) * DDR_ALIGNMENT
        if address + size > self.limit:
            raise CompileError(f"{what}: {size} bytes do not fit the DDR of {self.limit - self.base} bytes; enlarge it")
        self.top = address + size
        return address

    def align_page(self) -> int:
        """Round up to a page of 4 KiB, so that a window can begin here; return its address."""
        self.top = -(-self.top // 4096) * 4096
        return self.top


@dataclass(frozen=True)
class Region:
    """Words ``[start, end)`` of every bank."""

    start: int
    end: int


class ScratchpadAllocator:
    """First fit over the words of a bank; a region never straddles the two sub-banks."""

    def __init__(self, config: NpuConfig) -> None:
        half = config.bank_words // 2
        self._half = half
        self._free: list[list[tuple[int, int]]] = [[(0, half)], [(half, 2 * half)]]

    @property
    def sub_bank_words(self) -> int:
        """Words of a sub-bank."""
        return self._half

    def sub_bank(self, region: Region) -> int:
        """The sub-bank, 0 or 1, that holds ``region``."""
        return region.start // self._half

    def allocate(self, words: int, *, prefer: int = 0, high: bool = False) -> Region | None:
        """A region of ``words`` in sub-bank ``prefer``, else in the other; None when neither has room. ``high``: the
        last one that fits, so that what is large finds room below."""
        for free in (self._free[prefer], self._free[1 - prefer]):
            fits = [n for n, (start, end) in enumerate(free) if end - start >= words]
            if fits:
                n = fits[-1 if high else 0]
                start, end = free[n]
                at = end - words if high else start
                free[n : n + 1] = [(a, b) for a, b in ((start, at), (at + words, end)) if a < b]
                return Region(at, at + words)
        return None

    def holds(self, requests: Sequence[tuple[int, int]]) -> bool:
        """Whether regions of (words, preferred sub-bank) can be allocated in this order; nothing is."""
        trial = copy.copy(self)
        trial._free = [list(spans) for spans in self._free]
        return all(trial.allocate(words, prefer=prefer) is not None for words, prefer in requests)

    def release(self, region: Region) -> None:
        """Give ``region`` back and join it with its free neighbours."""
        bank = self.sub_bank(region)
        spans = sorted([*self._free[bank], (region.start, region.end)])
        merged = [spans[0]]
        for start, end in spans[1:]:
            if start == merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        self._free[bank] = merged

    def largest(self, bank: int) -> int:
        """Words of the largest free region of sub-bank ``bank``."""
        return max((end - start for start, end in self._free[bank]), default=0)
