"""Dynamic quantisation of bf16 rows to the operands of a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.isa import DType
from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import largest_of_groups, quantise_groups, quantise_measured
from headrace_host.transformer.tensors import OPERANDS, VECTORS, Arena, Tensor

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

    def groups(self, rows: int, channels: int) -> Tensor:
        """Room for the largest magnitude of each group of 32 of ``channels`` channels."""
        lanes = self._image.config.vector_lanes
        return self._arena.new(
            "largest of groups", rows, channels // GROUP_CODES + lanes - 1, DType.BF16, bank=VECTORS, high=True
        )

    def measure(self, source: Tensor, groups: Tensor, rows: int, first: int, channels: int) -> None:
        """Fill in ``groups`` of ``channels`` channels of ``source`` from ``first`` on; in order of channels."""
        x = RowTensor(view=source.view, kind=DType.BF16, channel=2 * first, steps=STEP)
        g = RowTensor(view=groups.view, kind=DType.BF16, channel=2 * (first // GROUP_CODES), steps=STEP)
        emit_rows(self._image, largest_of_groups(), {"x": x}, [g], rows=(rows,), elements=channels)

    def emit(self, source: Tensor, rows: int, groups: Tensor | None = None) -> Quantised:
        """Codes and scales of ``rows`` rows, of which `measure` has filled in ``groups``, if given."""
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
            inputs = {"x": x}
            if groups is not None:
                inputs["g"] = RowTensor(view=groups.view, kind=DType.BF16, pixel=first, steps=STEP)
            kernel = quantise_groups() if groups is None else quantise_measured()
            emit_rows(self._image, kernel, inputs, results, rows=(count,), elements=channels)
        return out
