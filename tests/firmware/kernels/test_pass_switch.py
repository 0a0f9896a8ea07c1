"""Passes follow each other without draining: a switch costs at most 4 cycles beyond the last beat (measured: none)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from headrace.config import machine
from headrace.isa import DType
from headrace_host.device import open_device
from headrace_host.kernels import transformer
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.trace import BF16, Kernel, RowFloat32, Stream, kernel, row_max, row_sum

PASSES = 8
ELEMENTS = 768
BEATS = ELEMENTS // machine("base").vector_lanes


@kernel(result=RowFloat32)
def total(x: BF16) -> Stream:
    return row_sum(x)


@kernel(result=RowFloat32)
def largest(x: BF16) -> Stream:
    return row_max(x)


def starts(kernels: list[Kernel]) -> list[int]:
    """Cycles at which independent passes start, whose contexts take turns."""
    image = KernelImage(machine("base"))
    image.begin("passes")
    source = image.external("source", 1, 2 * ELEMENTS)
    views = [image.reserve(f"operand {n}", 1, 2 * ELEMENTS, prefer=n) for n in range(2)]
    for view in views:
        image.memory.load(source, 0, 1, view, 0)
    operands = [RowTensor(view=view, kind=DType.BF16, steps=((1, 0),)) for view in views]
    for number in range(PASSES):
        each = kernels[number % len(kernels)]
        kind = DType.B32 if each.result.of_row else DType.BF16
        out = RowTensor(view=image.reserve("out", 1, 2 * ELEMENTS, prefer=1), kind=kind, steps=((1, 0),))
        emit_rows(image, each, dict(zip(each.elements, operands)), [out], rows=(1,), elements=ELEMENTS)
    stats = open_device("rtl", model := image.finish("passes")).execute(model)
    return sorted(span.begin for span in stats.spans)[-PASSES - 1 : -1]  # END comes last


@pytest.mark.parametrize(
    "kernels",
    [[transformer.copy], [transformer.copy, transformer.add], [total], [total, transformer.copy], [total, largest]],
    ids=["same", "one or two operands", "sums", "a sum and none", "two reductions"],
)
def test_passes_chain(kernels: list[Kernel]) -> None:
    steady = starts(kernels)[2:]  # the first wait for the loads
    gaps = [after - before - BEATS for before, after in pairwise(steady)]
    assert max(gaps) <= 4, gaps
    assert min(gaps) >= 0
