"""Depthwise convolutions in the array's own mode: one filter a channel, a scratchpad word of channels an n tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace_host.compiler.packing import entry_bytes
from headrace_host.compiler.tiling import ConvShape


def depthwise_mode(config: NpuConfig, shape: ConvShape, interleave: int) -> bool:
    """Whether the array has the mode for this kernel, and accumulators for interleaved row groups."""
    return shape.kernel.x <= config.depthwise_taps and config.halves << interleave <= config.accs


def depthwise_cycles(config: NpuConfig, shape: ConvShape, interleave: int) -> int:
    """Cycles of a row group and n tile, when no row group crosses a row of the output."""
    taps = shape.kernel.x
    shared = taps >= 3 and taps % 2 == 1 and interleave == 0 and shape.stride.x == shape.dilation.x == 1
    return shape.kernel.y * max(config.halves, (taps + 1) // 2 if shared else taps)


def pack_depthwise(config: NpuConfig, weights: NDArray[np.int8]) -> bytes:
    """Entries of ``weights`` [channels, ky, kx, 1] in ring order: n tile of 2K channels, then ky.

    Byte h*K + kx of column c of entry ky belongs to channel n*2K + h*C + c.
    """
    channels, kernel_y, kernel_x, _ = weights.shape
    word, halves, cols = config.word_bytes, config.halves, config.cols
    tiles = -(-channels // word)
    padded = np.zeros((tiles * word, kernel_y, config.lanes), np.int8)
    padded[:channels, :, :kernel_x] = weights[..., 0]
    taps = padded.reshape(tiles, halves, cols, kernel_y, config.lanes).transpose(0, 3, 2, 1, 4)
    columns = np.zeros((tiles * kernel_y, cols, word), np.int8)
    columns[..., : halves * config.lanes] = taps.reshape(tiles * kernel_y, cols, halves * config.lanes)
    image = np.zeros((tiles * kernel_y, entry_bytes(config)), np.int8)
    image[:, : cols * word] = columns.reshape(tiles * kernel_y, cols * word)
    return image.tobytes()
