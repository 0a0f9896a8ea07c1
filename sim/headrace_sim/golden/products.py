"""What the MAC array computes of words and weight entries, exactly: in BLAS where every partial sum fits the float."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace.isa import Cause

from .errors import Fault

__all__ = ["Operands", "Scales", "dense", "depthwise", "scaled"]

_GROUP = 32  # 4-bit weights that share scales
_UNIT = 16  # INT8 weights that share an activation shift
_UNIT_FACTOR = 8  # what INT8 weights have in place of sd: guard bits for the shift
_CHUNK = 1 << 22  # products and weight codes at a time


@dataclass(frozen=True)
class Operands:
    """Widths and signs of activation and weight codes."""

    precision: Precision
    act_unsigned: bool
    weight_unsigned: bool

    @property
    def act_bits(self) -> int:
        return 4 if self.precision is Precision.A4W4 else 8

    @property
    def weight_bits(self) -> int:
        return 8 if self.precision is Precision.A8W8 else 4

    @property
    def largest(self) -> int:
        """Largest magnitude of a product."""
        return _largest(self.act_bits, self.act_unsigned) * _largest(self.weight_bits, self.weight_unsigned)

    def activations(self, words: np.ndarray, entries: int, dtype: np.dtype) -> np.ndarray:
        """Codes [rows, terms] of words uint8 [rows, P, W]; words that entries lack are zeros."""
        missing = entries * self.precision.words - words.shape[1]
        padded = np.pad(words, ((0, 0), (0, missing), (0, 0))) if missing else words
        return _codes(padded.reshape(len(words), -1), self.act_bits, self.act_unsigned, dtype)

    def weights(self, codes: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Codes [..., terms] of bytes uint8 [..., W]."""
        return _codes(codes, self.weight_bits, self.weight_unsigned, dtype)


def _largest(bits: int, unsigned: bool) -> int:
    return (1 << bits) - 1 if unsigned else 1 << (bits - 1)


@cache
def _nibbles(unsigned: bool, dtype: np.dtype) -> np.ndarray:
    """Both codes of every byte: [256, 2]."""
    byte = np.arange(256)
    pair = np.stack([byte & 15, byte >> 4], axis=1)
    return (pair if unsigned else (pair ^ 8) - 8).astype(dtype)


def _codes(raw: np.ndarray, bits: int, unsigned: bool, dtype: np.dtype) -> np.ndarray:
    if bits == 8:
        return raw.view(np.uint8 if unsigned else np.int8).astype(dtype)
    return _nibbles(unsigned, dtype).take(raw, axis=0).reshape(*raw.shape[:-1], -1)


def dense(words: np.ndarray, codes: np.ndarray, operands: Operands) -> np.ndarray:
    """Sums int32 [n, rows, C] of words uint8 [rows, P, W] with entries uint8 [n, E, C, W].

    Raises:
        Fault: OVERFLOW when a running sum, judged after every entry, leaves int32.
    """
    n, entries, cols, width = codes.shape
    terms = entries * width * 8 // operands.weight_bits
    dtype = np.dtype(np.float32 if terms * operands.largest <= 1 << 24 else np.float64)
    left = operands.activations(words, entries, dtype)
    right = operands.weights(codes.transpose(0, 2, 1, 3).reshape(n * cols, entries * width), dtype)
    if terms * operands.largest >= 1 << 31 and (np.abs(left) @ np.abs(right).T).max() >= 2.0**31:
        _check_running_sums(left, right, terms // entries)
    return (left @ right.T).astype(np.int32).reshape(len(words), n, cols).transpose(1, 0, 2)


def _check_running_sums(left: np.ndarray, right: np.ndarray, entry: int) -> None:
    total = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], entry):
        total += left[:, start : start + entry] @ right[:, start : start + entry].T
        _check_range(total)


def _check_range(total: np.ndarray) -> None:
    if total.max() >= 1 << 31 or total.min() < -(1 << 31):
        raise Fault(Cause.OVERFLOW, 0)


@dataclass(frozen=True)
class Scales:
    """Group scales: ka uint8 [rows, P] of the words, `entries` uint8 [n, E, C, G, 2] (sd, sm), kc [n, C]."""

    ka: np.ndarray
    entries: np.ndarray
    kc: np.ndarray


@dataclass(frozen=True)
class _Groups:
    """Where the groups of a reduction end: entry, which of the entry's groups, word (all [groups])."""

    size: int
    count: int
    entry: np.ndarray
    part: np.ndarray
    word: np.ndarray

    @classmethod
    def of(cls, operands: Operands, config: NpuConfig, entries: int, words: int) -> "_Groups":
        size = _UNIT if operands.precision is Precision.A8W8 else _GROUP
        entry_codes = config.word_bytes * 8 // operands.weight_bits
        count = -(-entries * entry_codes // size)
        last = np.minimum(np.arange(1, count + 1) * size, entries * entry_codes) - 1
        word = np.minimum(last // (config.word_bytes * 8 // operands.act_bits), words - 1)
        return cls(size, count, last // entry_codes, last % entry_codes // size, word)


def scaled(words: np.ndarray, codes: np.ndarray, scales: Scales, operands: Operands, config: NpuConfig) -> np.ndarray:
    """As `dense`, every group scaled and shifted before it is added.

    Raises:
        Fault: OVERFLOW when a running sum, judged after every group, leaves int32.
    """
    n, entries, cols, width = codes.shape
    groups = _Groups.of(operands, config, entries, words.shape[1])
    left = _in_groups(operands.activations(words, entries, np.dtype(np.float32)), groups)
    out = np.empty((n, len(words), cols), np.int32)
    step = max(1, _CHUNK // (cols * max(groups.count * len(words), entries * width)))
    for first in range(0, n, step):
        some = slice(first, first + step)
        raw = codes[some].transpose(0, 2, 1, 3).reshape(-1, entries * width)
        right = _in_groups(operands.weights(raw, np.dtype(np.float32)), groups)
        psum = (left @ right.swapaxes(1, 2)).astype(np.int32)  # [groups, rows, n * C]
        parts = Scales(scales.ka, scales.entries[some], scales.kc[some])
        sums = _accumulate(_scale(psum, left, parts, groups, operands))
        out[some] = sums.reshape(len(words), -1, cols).swapaxes(0, 1)
    return out


def _in_groups(codes: np.ndarray, groups: _Groups) -> np.ndarray:
    """[rows, terms] to [groups, rows, codes]; the last group is filled up with zeros."""
    missing = groups.count * groups.size - codes.shape[1]
    padded = np.pad(codes, ((0, 0), (0, missing))) if missing else codes
    return padded.reshape(len(codes), groups.count, groups.size).swapaxes(0, 1)


def _scale(psum: np.ndarray, left: np.ndarray, scales: Scales, groups: _Groups, operands: Operands) -> np.ndarray:
    """What every group adds: int32 [groups, rows, n * C]. No intermediate exceeds 2^28."""
    if operands.precision is Precision.A8W8:
        total = psum * np.int32(_UNIT_FACTOR)
    else:
        pairs = scales.entries[:, groups.entry, :, groups.part]  # [groups, n, C, 2]
        sd = pairs[..., 0].astype(np.int32)
        offset = pairs[..., 1].view(np.int8).astype(np.int32) << scales.kc
        xsum = left.sum(axis=2).astype(np.int32)
        total = psum * sd.reshape(groups.count, 1, -1) + xsum[:, :, None] * offset.reshape(groups.count, 1, -1)
    ka = scales.ka[:, groups.word].T.astype(np.int32)[:, :, None]
    return (total + (np.int32(1) << ka >> 1)) >> ka if ka.any() else total


def _accumulate(parts: np.ndarray) -> np.ndarray:
    """Sum over groups, int32."""
    largest = np.abs(parts).max(axis=(1, 2), initial=0)
    if largest.sum(dtype=np.int64) >= 1 << 31:
        _check_range(np.cumsum(parts, axis=0, dtype=np.int64))
    return parts.sum(axis=0, dtype=np.int32)


def depthwise(words: np.ndarray, codes: np.ndarray, operands: Operands, config: NpuConfig, taps: int) -> np.ndarray:
    """Sums int32 [n, rows, H, C] of words uint8 [rows, kh * kw * n, W] with entries uint8 [n, kh, C, W]; `taps` is kw.

    A sum has at most 255 * 5 products, which is far inside int32.
    """
    n, kh, cols, _ = codes.shape
    acts = _codes(words, 8, operands.act_unsigned, np.dtype(np.int32)).reshape(len(words), kh, taps, n, -1)
    weights = _codes(codes, 8, operands.weight_unsigned, np.dtype(np.int32))
    # [n, kh, C, h * K + kx] -> [kh, kx, n, h * C + c]
    weights = weights.reshape(n, kh, cols, 2, config.lanes)[..., : config.halves, :taps]
    weights = weights.transpose(1, 4, 0, 3, 2).reshape(kh, taps, n, -1)
    total = np.zeros((len(words), n, config.word_bytes), np.int32)
    for ky in range(kh):
        for kx in range(taps):
            total += acts[:, ky, kx] * weights[ky, kx]
    return total.reshape(len(words), n, config.halves, cols).swapaxes(0, 1)
