"""Weights and per-channel vectors in the byte order the machine reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig

FOLD_PIXEL_BYTES = 4
"""Channel bytes that each folded kernel column takes of a word."""


def entry_bytes(config: NpuConfig) -> int:
    """Bytes of a weight entry in DDR: C columns of 2K codes, padded to a beat."""
    return config.entry_beats * config.axi_bytes


def entries_per_tile(config: NpuConfig, kernel_y: int, kernel_x: int, channels: int, *, fold: bool) -> int:
    """Weight entries that reduce one group of C output channels."""
    if fold:
        return kernel_y * -(-kernel_x // fold_taps(config))
    return kernel_y * kernel_x * -(-channels // config.word_bytes)


def fold_taps(config: NpuConfig) -> int:
    """Kernel columns that a folded word holds."""
    return config.word_bytes // FOLD_PIXEL_BYTES


def pack_weights(config: NpuConfig, weights: NDArray[np.int8], *, fold: bool) -> bytes:
    """Entries of ``weights`` [filters, ky, kx, channels] in ring order: n tile, ky, kx, channel word.

    Absent filters, channels and folded taps are zero, so that whatever they meet adds nothing.
    """
    filters, kernel_y, kernel_x, channels = weights.shape
    tiles, word = -(-filters // config.cols), config.word_bytes
    if fold:
        taps = fold_taps(config)
        groups = -(-kernel_x // taps)
        padded = np.zeros((tiles * config.cols, kernel_y, groups * taps, FOLD_PIXEL_BYTES), np.int8)
        padded[:filters, :, :kernel_x, :channels] = weights
        entries = padded.reshape(tiles, config.cols, kernel_y * groups, taps * FOLD_PIXEL_BYTES)
    else:
        words = -(-channels // word)
        padded = np.zeros((tiles * config.cols, kernel_y, kernel_x, words * word), np.int8)
        padded[:filters, :, :, :channels] = weights
        entries = padded.reshape(tiles, config.cols, kernel_y * kernel_x * words, word)
    codes = entries.transpose(0, 2, 1, 3).reshape(tiles * entries.shape[2], config.cols * word)
    image = np.zeros((len(codes), entry_bytes(config)), np.int8)
    image[:, : codes.shape[1]] = codes
    return image.tobytes()


def channel_words(config: NpuConfig, channels: int) -> int:
    """Column memory words of a per-channel vector: ceil(C / L) for each n tile."""
    return -(-channels // config.cols) * config.acc_beats


def pack_channels(config: NpuConfig, vector: NDArray[np.int32 | np.float32]) -> bytes:
    """A per-channel vector as column memory words: word n * ceil(C / L) + b, lane l is channel n C + b L + l."""
    tiles = -(-len(vector) // config.cols)
    padded = np.zeros((tiles, config.cols), vector.dtype)
    padded.reshape(-1)[: len(vector)] = vector
    lanes = np.zeros((tiles, config.acc_beats * config.vector_lanes), vector.dtype)
    lanes[:, : config.cols] = padded
    return lanes.tobytes()
