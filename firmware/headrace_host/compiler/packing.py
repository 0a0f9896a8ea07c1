"""Weights, group scales and per-channel vectors in the byte order the machine reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig, Precision
from headrace.isa import DType
from headrace_host.models.graph import GroupScales

FOLD_PIXEL_BYTES = 4
"""Channel bytes that each folded kernel column takes of a word."""

GROUP_CODES = 32
"""4-bit weights of a group that shares its scales."""


def word_codes(config: NpuConfig, precision: Precision) -> int:
    """Activation codes of a scratchpad word."""
    return config.word_bytes * (2 if precision is Precision.A4W4 else 1)


def entry_bytes(config: NpuConfig, *, scales: bool = False) -> int:
    """Bytes of a weight entry in DDR: C columns of 2K bytes, then its group scales, each padded to a beat."""
    return (config.entry_beats + (config.scale_beats if scales else 0)) * config.axi_bytes


def entries_per_tile(
    config: NpuConfig,
    kernel_y: int,
    kernel_x: int,
    channels: int,
    *,
    fold: bool,
    precision: Precision = Precision.A8W8,
) -> int:
    """Weight entries that reduce one group of C output channels."""
    if fold:
        words = kernel_y * -(-kernel_x // fold_taps(config))
    else:
        words = kernel_y * kernel_x * -(-channels // word_codes(config, precision))
    return -(-words // precision.words)


def fold_taps(config: NpuConfig) -> int:
    """Kernel columns that a folded word holds."""
    return config.word_bytes // FOLD_PIXEL_BYTES


def element_bytes(dtype: DType, elements: int) -> int:
    """Bytes that ``elements`` of I4 or of a type of one byte take."""
    return -(-elements // 2) if dtype == DType.I4 else elements


def pack_nibbles(codes: NDArray[np.int8 | np.uint8]) -> NDArray[np.uint8]:
    """4-bit codes along the last axis, two a byte, the first in bits 3..0; a missing last one is 0."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), codes.dtype)], axis=-1)
    low, high = codes[..., 0::2].view(np.uint8) & 15, codes[..., 1::2].view(np.uint8) & 15
    return (low | high << 4).astype(np.uint8)


def unpack_nibbles(content: NDArray[np.int8]) -> NDArray[np.int8]:
    """Signed 4-bit codes of bytes along the last axis, the inverse of `pack_nibbles` for an even number."""
    pairs = np.stack([content << 4 >> 4, content >> 4], axis=-1)
    return pairs.reshape(*content.shape[:-1], 2 * content.shape[-1])


def pack_weights(
    config: NpuConfig,
    weights: NDArray[np.int8],
    *,
    fold: bool,
    precision: Precision = Precision.A8W8,
    scales: GroupScales | None = None,
) -> bytes:
    """Entries of ``weights`` [filters, ky, kx, channels] in ring order: n tile, then words in order ky, kx, q.

    Absent filters, channels and folded taps are zero, so that whatever they meet adds nothing.
    """
    filters = len(weights)
    words = _fold_words(config, weights) if fold else _channel_words(config, weights, precision)
    entries = -(-words.shape[1] // precision.words)
    tiles = -(-filters // config.cols)
    padded = np.zeros((tiles * config.cols, entries * precision.words, words.shape[2]), np.int8)
    padded[:filters, : words.shape[1]] = words
    columns = padded.reshape(tiles, config.cols, entries, precision.words * words.shape[2])
    codes = columns.view(np.uint8) if precision is Precision.A8W8 else pack_nibbles(columns)
    image = np.zeros((tiles, entries, entry_bytes(config, scales=_stored(scales))), np.uint8)
    used = config.cols * config.word_bytes
    image[:, :, :used] = codes.transpose(0, 2, 1, 3).reshape(tiles, entries, used)
    if scales is not None and _stored(scales):
        packed = _pack_scales(config, scales, tiles, entries)
        start = entry_bytes(config)
        image[:, :, start : start + packed.shape[2]] = packed
    return image.tobytes()


def _stored(scales: GroupScales | None) -> bool:
    """Whether entries carry scales; in A8W8 they do not."""
    return scales is not None and scales.sd is not None


def _fold_words(config: NpuConfig, weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Codes [filters, words, codes of a word]; a word holds several kernel columns."""
    filters, kernel_y, kernel_x, channels = weights.shape
    taps = fold_taps(config)
    groups = -(-kernel_x // taps)
    padded = np.zeros((filters, kernel_y, groups * taps, FOLD_PIXEL_BYTES), np.int8)
    padded[:, :, :kernel_x, :channels] = weights
    return padded.reshape(filters, kernel_y * groups, taps * FOLD_PIXEL_BYTES)


def _channel_words(config: NpuConfig, weights: NDArray[np.int8], precision: Precision) -> NDArray[np.int8]:
    """Codes [filters, words, codes of a word]; a word holds channels of one kernel position."""
    filters, kernel_y, kernel_x, channels = weights.shape
    word = word_codes(config, precision)
    words = -(-channels // word)
    padded = np.zeros((filters, kernel_y, kernel_x, words * word), np.int8)
    padded[..., :channels] = weights
    return padded.reshape(filters, kernel_y * kernel_x * words, word)


def _pack_scales(config: NpuConfig, scales: GroupScales, tiles: int, entries: int) -> NDArray[np.uint8]:
    """Scale bytes [tiles, entries, 2 C G]: sd and sm of a group lie in the entry in which it ends."""
    assert scales.sd is not None and scales.sm is not None
    filters, groups = scales.sd.shape
    slots, codes = config.entry_groups, 2 * config.word_bytes
    out = np.zeros((tiles * config.cols, entries, slots, 2), np.uint8)
    for group in range(groups):
        entry = min(-(-GROUP_CODES * (group + 1) // codes), entries) - 1
        out[:filters, entry, group % slots, 0] = scales.sd[:, group]
        out[:filters, entry, group % slots, 1] = scales.sm[:, group].view(np.uint8)
    columns = out.reshape(tiles, config.cols, entries, slots * 2).transpose(0, 2, 1, 3)
    return columns.reshape(tiles, entries, config.cols * slots * 2)


def pack_offset_shifts(config: NpuConfig, shifts: NDArray[np.uint8]) -> bytes:
    """The words of the table of group offset shifts: 4 bits a column, eight columns to 32 bits, one word an n tile."""
    tiles, elements = -(-len(shifts) // config.cols), -(-config.cols // 8)
    padded = np.zeros(tiles * config.cols, np.uint32)
    padded[: len(shifts)] = shifts
    columns = np.zeros((tiles, elements * 8), np.uint32)
    columns[:, : config.cols] = padded.reshape(tiles, config.cols)
    places = np.arange(8, dtype=np.uint32) * np.uint32(4)
    return (columns.reshape(tiles, elements, 8) << places).sum(axis=2, dtype=np.uint32).tobytes()


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
