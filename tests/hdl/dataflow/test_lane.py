"""A lane against numpy float32 with the flush rule, and against Python integers."""

import itertools

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from headrace.dataflow.lane import Lane
from headrace.dataflow.lane_control import LaneControl
from headrace.isa import DataflowOp

from .reference import lane_op

FLOAT_CORNERS = [
    *(0x00000000, 0x00000001, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000),
    *(0x33800000, 0x33800001, 0x34000000, 0x3EFFFFFF, 0x3F000000, 0x3F000001, 0x3F7FFFFF, 0x3F800000, 0x3F800001),
    *(0x3FC00000, 0x40200000, 0x4B000000, 0x4B000001, 0x4B7FFFFF, 0x4B800000, 0x4EFFFFFF, 0x4F000000, 0x4F000001),
    *(0x5F000000, 0x7E800000, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF),
]
INT_CORNERS = [0, 1, 2, 3, 127, 128, 0xFFFFFF, 0x1000000, 0x1000001, 0x1000003, 0x7FFFFF7F, 0x7FFFFFBF, 0x7FFFFFFF]
FLOAT_OPS = [DataflowOp[name] for name in ("FADD", "FSUB", "FMUL", "FMIN", "FMAX", "FLT")]
INT_OPS = [DataflowOp[name] for name in ("IADD", "ISUB", "IMIN", "IMAX", "ISHR", "PASS", "ILT")]
UNNAMED = range(len(DataflowOp), 64)
BIT_OPS = [DataflowOp.IAND, DataflowOp.IOR, DataflowOp.IXOR, DataflowOp.ISHL]


def _meaning(code: int) -> DataflowOp:
    return DataflowOp.PASS if code in UNNAMED else DataflowOp(int(code))


def check(op: np.ndarray, a: np.ndarray, b: np.ndarray, shift: np.ndarray) -> None:
    """Run the operations back to back and compare each result, `Lane.LATENCY` cycles later, with the reference."""
    expected = np.zeros(len(op), np.uint32)
    for kind in np.unique(op):
        at = op == kind
        expected[at] = lane_op(_meaning(kind), a[at], b[at], shift[at])
    got = np.zeros(len(op), np.uint32)
    dut, control = Lane(), LaneControl()
    top = Module()
    top.submodules += [dut, control]
    connect(top, control.o, dut.control)

    async def bench(ctx):
        for i in range(len(op) + Lane.LATENCY):
            ctx.set(control.en, i < len(op))
            if i < len(op):
                ctx.set(control.op, int(op[i]))
                ctx.set(dut.a, int(a[i]))
                ctx.set(dut.b, int(b[i]))
                ctx.set(control.shift, int(shift[i]))
            if i >= Lane.LATENCY:
                got[i - Lane.LATENCY] = ctx.get(dut.o)
            await ctx.tick()

    sim = Simulator(top)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), "\n".join(
        f"{op[i]}, {_meaning(op[i]).name} {a[i]:08x} {b[i]:08x} sh {shift[i]}: {got[i]:08x}, expected {expected[i]:08x}"
        for i in wrong[:10]
    )


def _pairs(values: list[int]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(list(itertools.product(values, repeat=2)), np.uint32)
    return pairs[:, 0], pairs[:, 1]


@pytest.mark.parametrize("op", FLOAT_OPS, ids=lambda op: op.name)
def test_float_corners(op):
    a, b = _pairs(FLOAT_CORNERS + [v | 0x80000000 for v in FLOAT_CORNERS])
    check(np.full(len(a), op), a, b, np.zeros(len(a), np.int64))


@pytest.mark.parametrize("op", [DataflowOp.F2I, DataflowOp.I2F, DataflowOp.F2IC], ids=lambda op: op.name)
def test_conversion_corners(op):
    values = FLOAT_CORNERS + INT_CORNERS
    values = np.array(values + [v | 0x80000000 for v in values] + [-v & 0xFFFFFFFF for v in INT_CORNERS], np.uint32)
    halves = np.arange(-40, 41).astype(np.float32) / 4
    a = np.concatenate([values, halves.view(np.uint32), (halves * 4096).view(np.uint32)])
    for low, high in ((-128, 127), (-32768, 32767), (-7, 5), (3, 3)):
        b = np.full(len(a), (high & 0xFFFF) << 16 | low & 0xFFFF, np.uint32)
        check(np.full(len(a), op), a, b, np.zeros(len(a), np.int64))


@pytest.mark.parametrize("op", INT_OPS, ids=lambda op: op.name)
def test_integer_corners(op):
    a, b = _pairs(INT_CORNERS + [-v & 0xFFFFFFFF for v in INT_CORNERS] + [0x80000000])
    for shift in (0, 1, 7, 31):
        check(np.full(len(a), op), a, b, np.full(len(a), shift))


@pytest.mark.parametrize("op", BIT_OPS, ids=lambda op: op.name)
def test_bits(op):
    """Corners, and every distance of a shift (and bits beyond its five, which do not count)."""
    a, b = _pairs([0, 1, 0x80000000, 0xFFFFFFFF, 0x12345678, 0xA5A5A5A5, *range(32), 63, 0xFFFFFFE0])
    check(np.full(len(a), op), a, b, np.zeros(len(a), np.int64))


@pytest.mark.parametrize("op", [DataflowOp.FRCP, DataflowOp.FRSQ], ids=lambda op: op.name)
def test_reciprocals(op):
    """Every exponent and sign with both ends of every interval of the mantissa, and steps inside."""
    fraction = np.array([part << 18 | low for part in range(32) for low in (0, 1 << 10, 0x15555, 0x3FFFF)], np.uint32)
    head = np.arange(512, dtype=np.uint32) << 23
    a = (head[:, None] | fraction).ravel()
    check(np.full(len(a), op), a, np.zeros_like(a), np.zeros(len(a), np.int64))


def test_powers_of_two():
    """Every step of one octave, the ends of every eighth and a middle in all octaves and beyond, far corners."""
    octave = np.arange(1 << 11)
    ends = [eighth << 8 | low for eighth in range(8) for low in (0, 255)] + [3 << 8 | 128]
    octaves = (np.arange(-131, 133)[:, None] << 11) + np.array(ends)
    far = [(1 << power) + step for power in range(17, 31) for step in (-1, 0, 1)] + [(1 << 31) - 1]
    a = np.concatenate([octave, octaves.ravel(), far, ~np.array(far)]).astype(np.int64).astype(np.uint32)
    check(np.full(len(a), DataflowOp.EXP2), a, np.zeros_like(a), np.zeros(len(a), np.int64))


def test_codes_without_an_operation_pass():
    """Each keeps a, next to the operation its low bits would name."""
    op = np.array([code for unnamed in UNNAMED for code in (unnamed & 31, unnamed, unnamed & 15)])
    a = np.array([0x80000001, 0x3F812345, 0xFFFFFF, 0x7FFFFFFF, 5], np.uint32)
    op, a = np.repeat(op, len(a)), np.tile(a, len(op))
    narrow = np.isin(op, [DataflowOp.IMUL, DataflowOp.IDIVR])
    a = np.where(narrow, a & 0xFFFFFF, a)
    check(op, a, np.full_like(a, 0x00C0FFEE), np.ones(len(a), np.int64))


def test_products_and_division():
    wide = [0, 1, 2, 3, 5, 0x7FFFFF, 0x800000, 0xFFFFFE, 0xFFFFFF]
    a, b = _pairs(wide + [-v & 0xFFFFFFFF for v in wide] + [0xFF000000])
    check(np.full(len(a), DataflowOp.IMUL), a, b, np.zeros(len(a), np.int64))
    a, b = (v.reshape(-1) for v in np.meshgrid(np.array(wide + [-v & 0xFFFFFFFF for v in wide], np.uint32), wide))
    for shift in (1, 2, 20, 23, 31):
        check(np.full(len(a), DataflowOp.IDIVR), a, b.astype(np.uint32), np.full(len(a), shift))


def _random_floats(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of all kinds: any bits, exponents close together, near the subnormal limit, few significant bits."""
    a = rng.integers(0, 1 << 32, n, dtype=np.uint32)
    b = rng.integers(0, 1 << 32, n, dtype=np.uint32)
    exponent = (a >> 23 & 0xFF).astype(np.int64)
    kind = rng.integers(0, 5, n)
    near = np.clip(exponent + rng.integers(-26, 27, n), 0, 255)
    product_low = np.clip(127 - exponent + rng.integers(-3, 4, n), 0, 255)
    chosen = np.select([kind == 1, kind == 2, kind == 3], [near, exponent, product_low], b >> 23 & 0xFF)
    b = (b & 0x807FFFFF | chosen.astype(np.uint32) << 23).astype(np.uint32)
    mask = (0xFFFFFFFF << rng.integers(0, 24, n) & 0xFFFFFFFF).astype(np.uint32)
    sparse = rng.integers(0, 2, n, dtype=bool)
    return np.where(sparse, a & mask, a), np.where(sparse, b & mask, b)


def test_random_mixture():
    """Every operation at random, back to back, so that neighbouring operations cannot leak into each other."""
    seed, n = 2024, 12_000
    print("seed", seed)
    rng = np.random.default_rng(seed)
    a, b = _random_floats(rng, n)
    op = rng.integers(0, len(DataflowOp) + 2, n)  # two codes without an operation too
    op = np.where(rng.integers(0, 2, n), rng.choice([o.value for o in FLOAT_OPS], n), op)
    shift = rng.integers(1, 32, n)
    narrow = np.isin(op, [DataflowOp.IMUL, DataflowOp.IDIVR])
    a = np.where(narrow, rng.integers(-(1 << 24) + 1, 1 << 24, n) >> rng.integers(0, 24, n), a.astype(np.int64))
    b = np.where(narrow, rng.integers(0, 1 << 24, n), b.astype(np.int64))
    convert = np.isin(op, [DataflowOp.F2I, DataflowOp.F2IC]) & (rng.integers(0, 4, n) > 0)
    values = (rng.normal(size=n) * 2.0 ** rng.integers(-3, 34, n)).astype(np.float32)
    values = np.where(rng.integers(0, 2, n), np.rint(values * 2) / np.float32(2), values).astype(np.float32)
    a = np.where(convert, values.view(np.uint32).astype(np.int64), a)
    a = np.where(op == DataflowOp.EXP2, rng.integers(-(1 << 31), 1 << 31, n) >> rng.integers(0, 20, n), a)
    low, high = np.sort(rng.integers(-(1 << 15), 1 << 15, (2, n)), axis=0)
    b = np.where(op == DataflowOp.F2IC, (high & 0xFFFF) << 16 | low & 0xFFFF, b)
    check(op, (a & 0xFFFFFFFF).astype(np.uint32), (b & 0xFFFFFFFF).astype(np.uint32), shift)
