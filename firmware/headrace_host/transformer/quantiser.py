"""Dynamic quantisation of bf16 rows to the operands of a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.isa import DType
from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import quantise_groups
from headrace_host.transformer.tensors import OPERANDS, Arena, Tensor

RECORD_BYTES = 25 << 10
"""Of the groups of the rows that are quantised at a time."""
STEP = ((1, 0),)
"""Rows that are consecutive pixels."""


@dataclass(frozen=True)
class Quantised:
    """Int8 codes with activation shifts, and the scale of each row."""

    codes: Tensor
    scales: Tensor


class Quantiser:
    """Emits the passes for a tensor of any width, as many rows at a time as `RECORD_BYTES` allow."""

    def __init__(self, image: KernelImage, arena: Arena) -> None:
        self._image, self._arena = image, arena

    def emit(self, source: Tensor, rows: int) -> Quantised:
        """Codes and scales of ``rows`` rows."""
        channels = source.view.channels // source.size
        codes = self._arena.new("codes", rows, channels, DType.I8, bank=OPERANDS)
        out = Quantised(codes, self._arena.record("scales", rows))
        record = 2 * self._image.config.vector_lanes * channels // GROUP_CODES
        block = max(1, min(rows, RECORD_BYTES // record))
        for first in range(0, rows, block):
            count = min(block, rows - first)
            x = RowTensor(view=source.view, kind=DType.BF16, pixel=first, steps=STEP)
            results = [
                RowTensor(view=codes.view, kind=DType.I8, pixel=first, steps=STEP),
                RowTensor(view=codes.view, kind=DType.KA, pixel=first, steps=STEP),
                RowTensor(view=out.scales.view, kind=DType.B32, pixel=first, steps=STEP),
            ]
            emit_rows(self._image, quantise_groups(), {"x": x}, results, rows=(count,), elements=channels)
        return out
