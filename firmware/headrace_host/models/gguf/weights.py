"""GGUF matrices in the machine's form, converted when asked for.

| In the file | On the machine |
|---|---|
| embedding, head, Q8_0 | INT8 rows of the dequantised weights |
| Q4_0, Q4_1 | 4-bit groups, codes as they are |
| other types | 4-bit groups when these change the weights by at most `LARGEST_LOSS`, else INT8 rows |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import Q4_K, dequantize
from numpy.typing import NDArray

from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.errors import ModelError
from headrace_host.kernels.group_weights import GroupWeights, from_q4_1
from headrace_host.kernels.row_weights import RowWeights, from_rows
from headrace_host.models.gguf.reader import GgufFile, GgufTensor
from headrace_host.models.language import MachineWeights, machine_dense

LARGEST_LOSS = 0.02
"""Of `relative_error`. INT8 rows, and groups of codes that were 4 bits, lose 0.005 to 0.012; 4 bits of other weights
about 0.08."""

SUPPORTED = frozenset(
    {
        *(Kind.F32, Kind.F16, Kind.BF16),
        *(Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0),
        *(Kind.Q4_K, Kind.Q5_K, Kind.Q6_K),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FourBit:
    """w = d q + m of each group of 32: codes [rows, inputs] 0..15; d >= 0 and m are fp32 [rows, inputs / 32]."""

    codes: NDArray[np.uint8]
    d: NDArray[np.float32]
    m: NDArray[np.float32]

    def grouped(self) -> GroupWeights:
        """The machine's form."""
        return from_q4_1(self.codes, self.d, self.m)


@dataclass(frozen=True, kw_only=True, eq=False)
class GgufMatrix:
    """A matrix of an open file; ``rows_only`` asks for INT8 rows (embedding, head)."""

    file: GgufFile
    tensor: GgufTensor
    rows_only: bool = False

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, int]:
        outputs, inputs = self.tensor.shape
        return outputs, inputs

    @property
    def stored_type(self) -> str:
        return self.tensor.kind.name

    @property
    def stored_bytes(self) -> int:
        return self.tensor.size

    def dense(self) -> NDArray[np.float32]:
        """Raises `ModelError` when a weight is infinite or not a number."""
        return dense(self.file, self.tensor)

    def machine(self) -> MachineWeights:
        """Raises `ModelError` when a weight or a scale is infinite or not a number."""
        kind = self.tensor.kind
        if self.rows_only or kind == Kind.Q8_0:
            return from_rows(self.dense())
        try:
            if kind in (Kind.Q4_0, Kind.Q4_1):
                return self._four_bit().grouped()
            return self._least_loss(self.dense())
        except ModelError as error:
            raise ModelError(f"{self.file.name}: tensor '{self.name}': {error}") from error

    def _least_loss(self, values: NDArray[np.float32]) -> GroupWeights | RowWeights:
        if values.shape[1] % GROUP_CODES == 0:
            four = self._four_bit() if self.tensor.kind == Kind.Q4_K else nearest_four_bit(values)
            grouped = four.grouped()
            if relative_error(machine_dense(grouped), values) <= LARGEST_LOSS:
                return grouped
        return from_rows(values)

    def _four_bit(self) -> FourBit:
        return _UNPACK[self.tensor.kind](self.file.content(self.tensor))


def dense(file: GgufFile, tensor: GgufTensor) -> NDArray[np.float32]:
    """fp32 values of ``tensor``; raise `ModelError` when one is infinite or not a number."""
    with np.errstate(all="ignore"):  # what overflows here is reported below
        values = dequantize(file.content(tensor), tensor.kind).astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ModelError(
            f"{file.name}: tensor '{tensor.name}' has infinite values or none at all; the file is damaged, fetch or "
            "convert it again"
        )
    return values.reshape(tensor.shape)


def nearest_four_bit(values: NDArray[np.float32]) -> FourBit:
    """Codes between the smallest and the largest weight of each group of 32."""
    rows = len(values)
    grouped = values.reshape(rows, -1, GROUP_CODES)
    low = grouped.min(axis=2)
    step = (grouped.max(axis=2) - low) / np.float32(15)
    codes = np.rint((grouped - low[:, :, None]) / np.where(step > 0, step, np.float32(1))[:, :, None])
    return FourBit(codes=codes.astype(np.uint8).reshape(rows, -1), d=step, m=low)


def relative_error(found: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Root of the summed squared differences over that of ``exact``; 0 when both are zero."""
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size else float(found.any())


def _q4_0(content: NDArray[np.uint8]) -> FourBit:
    """w = d (q - 8). Where d is negative, |d| (8 - q) = |d| (15 - q) - 7 |d|: inverted codes, another minimum."""
    blocks = content.reshape(len(content), -1, 18)
    d = _half(blocks[:, :, :2])
    negative = d < 0
    codes = np.where(negative[:, :, None], 15 - _nibbles(blocks[:, :, 2:]), _nibbles(blocks[:, :, 2:]))
    size = np.abs(d)
    minima = np.where(negative, np.float32(-7) * size, np.float32(-8) * size)
    return FourBit(codes=codes.reshape(len(content), -1), d=size, m=minima)


def _q4_1(content: NDArray[np.uint8]) -> FourBit:
    blocks = content.reshape(len(content), -1, 20)
    codes = _nibbles(blocks[:, :, 4:]).reshape(len(content), -1)
    return FourBit(codes=codes, d=_half(blocks[:, :, :2]), m=_half(blocks[:, :, 2:4]))


def _q4_k(content: NDArray[np.uint8]) -> FourBit:
    """Blocks of 8 groups: two fp16 scales of 6-bit scales and minima, then nibbles of two groups in 32 bytes."""
    rows = len(content)
    blocks = content.reshape(-1, 144)
    sc, minimum = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))
    d = _half(blocks[:, :2])[:, None] * sc.astype(np.float32)
    m = -_half(blocks[:, 2:4])[:, None] * minimum.astype(np.float32)
    codes = _nibbles(blocks[:, 16:].reshape(-1, 4, 32))
    return FourBit(codes=codes.reshape(rows, -1), d=d.reshape(rows, -1), m=m.reshape(rows, -1))


def _half(content: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pairs of bytes along the last axis as fp16 numbers."""
    return np.ascontiguousarray(content).view("<f2")[..., 0].astype(np.float32)


def _nibbles(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """4-bit codes of bytes along the last axis: all low ones, then all high ones."""
    return np.concatenate([content & 15, content >> 4], axis=-1)


_UNPACK = {Kind.Q4_0: _q4_0, Kind.Q4_1: _q4_1, Kind.Q4_K: _q4_k}
