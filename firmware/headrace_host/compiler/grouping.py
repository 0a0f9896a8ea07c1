"""Grouped convolutions: which channel planes each n tile reads, and dense weights over those planes."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grouping:
    """With ``groups``, ``tiles`` consecutive n tiles read the same ``words`` planes, the next ones ``step`` later.

    The last window starts earlier where it would leave the ``planes`` of the tensor.
    """

    groups: int
    tiles: int
    step: int
    words: int
    planes: int

    @classmethod
    def of(cls, *, groups: int, filters: int, channels: int, cols: int, word: int) -> Grouping:
        """The smallest windows on whole planes of ``word`` channels for n tiles of ``cols`` of all ``filters``."""
        outputs, inputs = filters // groups, channels // groups
        planes = -(-channels // word)
        # n tiles of a window: their filters fill whole convolution groups and their inputs whole planes.
        whole = word // gcd(inputs, word) * outputs  # filters whose inputs fill whole planes
        tiles = whole // gcd(whole, cols)
        step = tiles * cols // outputs * inputs // word
        return cls(groups, tiles, step, min(step, planes), planes)

    def first_plane(self, tile: int) -> int:
        """First plane that n tile ``tile`` reads."""
        return min(tile // self.tiles * self.step, self.planes - self.words)

    def cuts(self, n_tiles: int) -> tuple[int, ...]:
        """n tiles at which a MAC command must end: before the window that starts earlier than its turn."""
        last = (n_tiles - 1) // self.tiles
        return (last * self.tiles,) if last * self.step > self.planes - self.words else ()

    def dense(self, weights: NDArray[np.int8], *, cols: int, word: int) -> NDArray[np.int8]:
        """``weights`` [filters, ky, kx, channels / groups] as [filters, ky, kx, words * word], zero elsewhere."""
        filters, kernel_y, kernel_x, inputs = weights.shape
        out = np.zeros((filters, kernel_y, kernel_x, self.words * word), np.int8)
        for channel in range(filters):
            start = channel * self.groups // filters * inputs - self.first_plane(channel // cols) * word
            out[channel, :, :, start : start + inputs] = weights[channel]
        return out
