"""The pipelined adder against numpy float32 with the flush rule."""

import itertools

import numpy as np
from amaranth.sim import Simulator

from headrace.dataflow.float_add import FloatAdd

from .reference import float_add

CORNERS = [
    *(0x00000000, 0x00000001, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000, 0x01000001),
    *(0x0C000000, 0x0C7FFFFF, 0x33800000, 0x33800001, 0x34000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40000000),
    *(0x4B7FFFFF, 0x4B800000, 0x4B800001, 0x7E800000, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF),
    *(0x73000000, 0x72FFFFFF, 0x73000001, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF),
]


def check(a: np.ndarray, b: np.ndarray, *, gaps: bool = False) -> None:
    """Add back to back, or with idle cycles; every sum is there `LATENCY` cycles later."""
    expected = float_add(a, b)
    dut, got = FloatAdd(), np.zeros(len(a), np.uint32)
    idle = np.random.default_rng(1).integers(0, 3, len(a)) * gaps
    slots = [slot for i, n in enumerate(idle) for slot in (*[None] * n, i)]

    async def bench(ctx):
        pending: list[int | None] = [None] * FloatAdd.LATENCY
        for number in [*slots, *pending]:
            leaves = pending.pop()
            if leaves is not None:
                got[leaves] = ctx.get(dut.o)
            pending.insert(0, number)
            ctx.set(dut.a, 0x7FC00000 if number is None else int(a[number]))
            ctx.set(dut.b, 0x7FC00000 if number is None else int(b[number]))
            ctx.set(dut.en, sum((p is not None) << stage for stage, p in enumerate(pending)))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), "\n".join(
        f"{a[i]:08x} + {b[i]:08x}: {got[i]:08x}, expected {expected[i]:08x}" for i in wrong[:10]
    )


def pairs(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """All kinds: any bits, exponents close together, near the subnormal limit and the largest, few significant bits."""
    a, b = rng.integers(0, 1 << 32, (2, n), dtype=np.uint32)
    exponent = (a >> 23 & 0xFF).astype(np.int64)
    kind = rng.integers(0, 5, n)
    exponent = np.where(kind == 4, rng.choice([1, 2, 3, 24, 25, 26, 27, 28, 252, 253, 254], n), exponent)
    a = a & 0x807FFFFF | exponent.astype(np.uint32) << 23
    near = np.clip(exponent + rng.integers(-28, 29, n), 0, 254)
    close = np.clip(exponent + rng.integers(-2, 3, n), 0, 255)
    chosen = np.select([kind == 0, kind == 1], [b >> 23 & 0xFF, near], close).astype(np.uint32)
    b = b & 0x807FFFFF | chosen << 23
    shared = (0xFFFFFFFF << rng.integers(0, 24, n) & 0x7FFFFF).astype(np.uint32)  # cancel down to few bits
    b = np.where(kind == 3, b & ~shared | a & shared, b)
    mask = (0xFFFFFFFF << rng.integers(0, 24, n) & 0xFFFFFFFF).astype(np.uint32)
    sparse = rng.integers(0, 2, n, dtype=bool)
    return np.where(sparse, a & mask, a), np.where(sparse, b & mask, b)


def test_corners():
    values = CORNERS + [v | 0x80000000 for v in CORNERS]
    a, b = np.array(list(itertools.product(values, repeat=2)), np.uint32).T
    check(a, b)


def test_random():
    seed = 77
    print("seed", seed)
    check(*pairs(np.random.default_rng(seed), 30_000))


def test_halves():
    """Ties and their neighbours at every distance: 1.5 ulp and the like of an odd and an even mantissa."""
    low = np.array([0, 1, 2, 3, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF], np.uint32)
    grid = np.meshgrid(low, low, np.arange(0, 30), [0, 1], indexing="ij")
    one, other, distance, sign = (v.ravel().astype(np.uint32) for v in grid)
    check(150 << 23 | one, sign << 31 | (150 - distance) << 23 | other)


def test_idle_stages_keep_their_values():
    check(*pairs(np.random.default_rng(5), 300), gaps=True)
