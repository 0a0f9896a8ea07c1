"""Lane operations against Python integers and struct floats, corner patterns and random ones."""

import itertools

import numpy as np
import pytest

from headrace.isa import DataflowOp
from headrace_sim.golden.lane import lane_op

from .loops import floating, lane, signed

SEED = 5
FLOATS = [
    *(0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x20000000, 0x33800000, 0x33800001),
    *(0x3EFFFFFF, 0x3F000000, 0x3F000001, 0x3F800000, 0x3FC00000, 0x40200000, 0x4B000001, 0x4B7FFFFF, 0x4EFFFFFF),
    *(0x4F000000, 0x5F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x46FFFE01, 0x42FF0000),
]
INTS = [0, 1, -1, 2, 127, -128, 0xFFFFFF, -0x1000000, 0x1000001, 0x1000003, 2**31 - 1, -(2**31), -(2**31) + 1]


def operands(floats: bool) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(SEED)
    corners = [signed(v | s, 32) for v in FLOATS for s in (0, 1 << 31)] if floats else INTS
    pairs = list(itertools.product(corners, corners))
    a, b = (list(column) for column in zip(*pairs))
    near = rng.integers(-(2**31), 2**31, 500)
    return a + near.tolist(), b + (near ^ rng.integers(0, 1 << 25, 500)).tolist()


def check(op: DataflowOp, a: list[int], b: list[int], sh: int) -> None:
    got = lane_op(op, np.array(a, np.int32), np.array(b, np.int32), sh)
    assert got.dtype == np.int32
    for left, right, value in zip(a, b, got.tolist()):
        want = lane(op, left, right, sh)
        assert value == want, f"{op.name} {left:#x} {right:#x} >> {sh}: {value:#x}, expected {want:#x}"


INTEGER = ["PASS", "IADD", "ISUB", "IMIN", "IMAX", "IAND", "IOR", "IXOR", "ISHL", "ILT"]
FLOATING = ["I2F", "F2I", "F2IC", "FADD", "FSUB", "FMUL", "FMIN", "FMAX", "FRCP", "FLT", "FRSQ"]


@pytest.mark.parametrize("op", [DataflowOp[name] for name in INTEGER])
def test_integer(op: DataflowOp) -> None:
    check(op, *operands(floats=False), 0)


def test_product_of_25_bits() -> None:
    a, b = operands(floats=False)
    check(DataflowOp.IMUL, [signed(v, 25) for v in a], [signed(v, 25) for v in b], 0)


@pytest.mark.parametrize("sh", [0, 1, 7, 20, 31])
def test_shift_of_an_exact_sum(sh: int) -> None:
    check(DataflowOp.ISHR, *operands(floats=False), sh)


@pytest.mark.parametrize("sh", [1, 2, 8, 21, 24, 31])
def test_rounding_division(sh: int) -> None:
    a, b = operands(floats=False)
    check(DataflowOp.IDIVR, [signed(v, 24) for v in a], [v & 0xFFFFFF for v in b], sh)


def test_ties() -> None:
    """ISHR with half the divisor rounds halves up, IDIVR away from zero."""
    a = np.arange(-12, 13, dtype=np.int32)
    np.testing.assert_array_equal(lane_op(DataflowOp.ISHR, a, np.int32(2) + 0 * a, 2), np.floor(a / 4 + 0.5))
    away = np.sign(a) * np.floor(np.abs(a) / 4 + 0.5)
    np.testing.assert_array_equal(lane_op(DataflowOp.IDIVR, a, np.int32(1) + 0 * a, 2), away)


@pytest.mark.parametrize("op", [DataflowOp[name] for name in FLOATING])
def test_floating(op: DataflowOp) -> None:
    check(op, *operands(floats=True), 0)


def test_conversion_from_integers() -> None:
    check(DataflowOp.I2F, *operands(floats=False), 0)


def test_reciprocal_roots() -> None:
    """Every exponent and sign with both ends of every interval of the mantissa; within 0.06% of the root."""
    fractions = [part << 19 | low for part in range(16) for low in (0, 0x3FFFF, 0x7FFFF)]
    a = [signed(head << 23 | low, 32) for head in range(512) for low in fractions]
    check(DataflowOp.FRSQ, a, a, 0)
    normal = np.array([v for v in a if 0x00800000 <= v < 0x7F800000], np.int32)
    got = lane_op(DataflowOp.FRSQ, normal, normal, 0).view(np.float32).astype(np.float64)
    np.testing.assert_allclose(got * np.sqrt(normal.view(np.float32).astype(np.float64)), 1, rtol=0.0006)


def test_powers_of_two() -> None:
    """One octave step by step, the ends of all octaves and beyond; within 0.25% of the power."""
    octave = list(range(-(1 << 11), 1 << 11))
    ends = [(n << 11) + low for n in range(-135, 135) for low in (-1, 0, 1, 255, 256, 1000)]
    far = [sign << power for power in range(18, 31) for sign in (-1, 1)] + INTS
    check(DataflowOp.EXP2, octave + ends + far, octave + ends + far, 0)
    a = np.array(octave, np.int32)
    got = lane_op(DataflowOp.EXP2, a, a, 0).view(np.float32).astype(np.float64)
    np.testing.assert_allclose(got, 2.0 ** (np.array(octave) / 2048), rtol=0.0025)


def test_masks_select() -> None:
    """(x ^ y) & (a < b) ^ y is x where a < b."""
    a, b = (np.array(v, np.int32) for v in operands(floats=True))
    mask = lane_op(DataflowOp.FLT, a, b, 0)
    smaller = [floating(left) < floating(right) for left, right in zip(a.tolist(), b.tolist())]
    np.testing.assert_array_equal((a ^ b) & mask ^ b, np.where(smaller, a, b))
