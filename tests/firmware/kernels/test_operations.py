"""Every lane operation on many operands: the machine's columns give what plain numpy gives, bit for bit.

The quick tests take 32,768 operands an operation, the long ones a million.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.config import machine
from headrace.isa import DataflowOp
from headrace_host.kernels.row_running import expected_rows, run_rows
from headrace_host.kernels.trace import (
    BF16,
    I8,
    I16,
    U8,
    Float32,
    Int32,
    Kernel,
    RowFloat32,
    Stream,
    binary,
    kernel,
    row_sum,
)

WIDTH = 1024
CORNERS = np.array(
    [
        0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
        0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F800000, 0xBF800000, 0x3F7FFFFF,
        0x3F800001, 0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001, 0x3F000000, 0x3FC00000, 0x40200000, 0x4B7FFFFF,
    ],
    np.uint32,
).view(np.int32)  # fmt: skip
"""Zeros, subnormals, the ends of normal numbers, infinities, NaNs, ones, int32's ends, ties."""


def operands(op: DataflowOp, rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Random patterns, nearby numbers, and all pairs of corners, in the domain of ``op``."""
    rng = np.random.default_rng([int(op), rows])
    a, b = (rng.integers(-(1 << 31), 1 << 31, (rows, WIDTH)).astype(np.int32) for _ in range(2))
    near = rows // 2
    b[:near] = (a[:near] & np.int32(-(1 << 26))) + rng.integers(0, 1 << 26, (near, WIDTH)).astype(np.int32)
    b[: near // 2] ^= np.int32(-(1 << 31)) * rng.integers(0, 2, (near // 2, WIDTH)).astype(np.int32)
    count = len(CORNERS) ** 2
    a.reshape(-1)[:count], b.reshape(-1)[:count] = np.repeat(CORNERS, len(CORNERS)), np.tile(CORNERS, len(CORNERS))
    match op:
        case DataflowOp.IMUL:
            return a >> 7, b >> 7
        case DataflowOp.IDIVR:
            return a >> 8, np.abs(b >> 8) & 0xFFFFFF
        case DataflowOp.EXP2:
            a[near:] >>= 11
    return a, b


def operation(op: DataflowOp, sh: int) -> Kernel:
    @kernel(result=Int32, name=op.name)
    def one(a: Int32, b: Int32) -> Stream:
        return binary(op.name, op, a, b, floats=False, sh=sh)

    return one


def check(op: DataflowOp, rows: int, backend: str) -> None:
    a, b = operands(op, rows)
    sh = {DataflowOp.ISHR: 7, DataflowOp.IDIVR: 9}.get(op, 0)
    k = operation(op, sh)
    found = run_rows(k, {"a": a, "b": b}, machine("base"), backend=backend)["result"]
    wanted = expected_rows(k, {"a": a, "b": b})["result"]
    wrong = np.flatnonzero(found != wanted)
    first = [f"{array.reshape(-1)[i]:#x}" for i in wrong[:1] for array in (a, b, found, wanted)]
    assert not len(wrong), f"{op.name}: {len(wrong)} of {a.size} differ, first a, b, result, expected: {first}"


@pytest.mark.parametrize("op", list(DataflowOp), ids=lambda op: op.name)
def test_operation(op: DataflowOp) -> None:
    check(op, 32, "rtl")


@pytest.mark.regress
@pytest.mark.parametrize("op", list(DataflowOp), ids=lambda op: op.name)
def test_operation_on_a_million(op: DataflowOp) -> None:
    check(op, 1024, "rtl")


def reading(element: type[Stream], result: type[Stream]) -> Kernel:
    def same(x: Stream) -> Stream:
        return x

    same.__annotations__["x"] = element
    return kernel(result=result, name=f"{element.__name__} to {result.__name__}")(same)


@pytest.mark.parametrize(
    ("element", "result", "every"),
    [
        (I8, Int32, np.arange(-128, 128, dtype=np.int8)),
        (U8, Int32, np.arange(256, dtype=np.uint8)),
        (I16, Int32, np.arange(-(1 << 15), 1 << 15, dtype=np.int16)),
        (BF16, Float32, np.arange(1 << 16, dtype=np.uint16)),
        (BF16, BF16, np.arange(1 << 16, dtype=np.uint16)),
        (Int32, I8, np.arange(-(1 << 15), 1 << 15, dtype=np.int32)),
        (Int32, U8, np.arange(-(1 << 15), 1 << 15, dtype=np.int32)),
        (Int32, I16, np.arange(-(1 << 17), 1 << 17, 4, dtype=np.int32) + np.arange(1 << 16, dtype=np.int32) % 4),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_conversion_of_every_code(element: type[Stream], result: type[Stream], every: NDArray[np.int32]) -> None:
    """From elements to 32 bits, and from 32 bits to elements on both sides of what they hold."""
    k, x = reading(element, result), every.reshape(-1, 256)
    found, wanted = run_rows(k, {"x": x}, machine("base"), backend="rtl"), expected_rows(k, {"x": x})
    np.testing.assert_array_equal(found["result"], wanted["result"])


@pytest.mark.parametrize("rows", [64, pytest.param(4096, marks=pytest.mark.regress)])
def test_rounding_to_bf16(rows: int) -> None:
    patterns = np.random.default_rng(rows).integers(-(1 << 31), 1 << 31, (rows, 512)).astype(np.int32)
    patterns[: rows // 2] &= np.int32(-(1 << 14))  # ties
    k, x = reading(Float32, BF16), patterns.view(np.float32)
    found, wanted = run_rows(k, {"x": x}, machine("base"), backend="rtl"), expected_rows(k, {"x": x})
    np.testing.assert_array_equal(found["result"], wanted["result"])


@pytest.mark.parametrize("width", [1, 31, 32, 33, 256, 257, 1000, 2048])
def test_sums_of_rows(width: int) -> None:
    """In the stated order whatever the length; numbers of very different size, so that the order shows."""

    @kernel(result=RowFloat32)
    def total(x: Float32) -> Stream:
        return row_sum(x)

    rng = np.random.default_rng(width)
    x = (rng.normal(0, 1, (40, width)) * np.exp2(rng.integers(-20, 20, (40, width)))).astype(np.float32)
    found, wanted = run_rows(total, {"x": x}, machine("base"), backend="rtl"), expected_rows(total, {"x": x})
    np.testing.assert_array_equal(found["result"].view(np.int32), wanted["result"].view(np.int32))
