"""The array against integers: modes in any mixture, scales, depthwise phases, drain, overflow, latencies."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.config import Precision
from headrace.interfaces import ACC_LATENCY
from headrace.mac.array import MacArray

from .sums import Sum, accumulate, random_sum

SIZES = [(1, 3, 4, 3, 0), (3, 1, 2, 2, 2), (2, 2, 8, 1, 5), (1, 1, 16, 2, 0)]  # rows, cols, lanes, accs, taps
MULTIPLIERS = ["fused", "dsp"]
SIGNS = [(False, False), (False, True), (True, False), (True, True)]


def integer(codes: np.ndarray, bits: int) -> int:
    return sum(int(code) << (bits * i) for i, code in enumerate(codes))


async def present(ctx, dut, s: Sum, phase: int):
    """One phase of a sum, with scales only where they are sampled."""
    rows = s.a.shape[1]
    cols = s.w.shape[1]
    finish = phase == len(s.a) - 1
    for r in range(rows):
        ctx.set(dut.a[r], integer(s.a[phase, r], 16))
        ctx.set(dut.ka[r], s.ka[r] if finish and s.ka else 0)
    for c in range(cols):
        ctx.set(dut.w[c], integer(s.w[phase, c], 16))
        for name in ("sd", "sm", "kc"):
            ctx.set(getattr(dut, name)[c], getattr(s, name)[c] if finish and getattr(s, name) else 0)
    if hasattr(dut, "depthwise"):
        ctx.set(dut.depthwise, s.dw is not None)
    if s.dw is not None:
        for r, c in product(range(rows), range(cols)):
            ctx.set(dut.dw[r * cols + c], integer(s.dw[r, c], 8))
    flags = {name: getattr(s, name) for name in ("mode", "scaled", "act_unsigned", "weight_unsigned", "overwrite")}
    for name, value in dict(step=1, t=s.t, buffer=s.buffer, restart=phase == 0, finish=finish, **flags).items():
        ctx.set(getattr(dut, name), value)
    await ctx.tick()
    ctx.set(dut.step, 0)


async def drain(ctx, dut, buffer, t, row):
    for name, value in dict(drain_buffer=buffer, drain_t=t, drain_row=row, drain_en=1).items():
        ctx.set(getattr(dut, name), value)
    await ctx.tick()
    ctx.set(dut.drain_en, 0)
    await ctx.tick().repeat(ACC_LATENCY - 1)
    return [int(np.int32(np.uint32(ctx.get(dut.drain_data[c])))) for c in range(len(dut.w))]


def check(dut, rows: int, cols: int, sums: list[Sum], gaps: float = 0.0, rng: np.random.Generator | None = None):
    """Runs the sums, compares the overflow flag of every cycle and all accumulators written."""
    accumulators, overflows = accumulate(sums, rows, cols)
    expected_flags: set[int] = set()
    flags: set[int] = set()
    cycle = 0

    async def watch(ctx):
        nonlocal cycle
        async for _, _, overflow in ctx.tick().sample(dut.overflow):
            if overflow:
                flags.add(cycle)
            cycle += 1

    async def bench(ctx):
        for s, overflow in zip(sums, overflows, strict=True):
            for phase in range(len(s.a)):
                while rng is not None and rng.random() < gaps:
                    await ctx.tick()
                start = cycle
                await present(ctx, dut, s, phase)
            if overflow:
                expected_flags.add(start + dut.LATENCY)
        await ctx.tick().repeat(dut.DRAIN_LATENCY - 1)
        for buffer, t, r in sorted({key[:3] for key in accumulators}):
            expected = [accumulators[buffer, t, r, c] for c in range(cols)]
            assert await drain(ctx, dut, buffer, t, r) == expected, (buffer, t, r)
        await ctx.tick().repeat(2)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(watch, background=True)
    sim.add_testbench(bench)
    sim.run()
    assert flags == expected_flags


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("rows,cols,lanes,accs,taps", SIZES)
@pytest.mark.parametrize("gaps", [0.0, 0.4])
def test_any_mixture_of_sums(rows, cols, lanes, accs, taps, multiplier, gaps):
    seed = rows * 1000 + accs * 10 + int(gaps > 0)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    dut = MacArray(rows=rows, cols=cols, lanes=lanes, accs=accs, multiplier=multiplier, taps=taps)
    sums, written = [], set()
    for _ in range(60):
        s = random_sum(rng, rows, cols, lanes, taps)
        s.buffer, s.t = int(rng.integers(2)), int(rng.integers(accs))
        s.overwrite = (s.buffer, s.t) not in written or rng.random() < 0.1
        written.add((s.buffer, s.t))
        sums.append(s)
    check(dut, rows, cols, sums, gaps, rng)


def extremes(unsigned: bool, bits: int) -> list[int]:
    """The smallest and largest code, and the negative or positive one of least magnitude."""
    top = 1 << bits
    return [0, 1, top - 1] if unsigned else [top // 2, top // 2 - 1, top - 1]


def lane(mode: Precision, codes: tuple[int, int], bits: int) -> int:
    """16 bits of a lane in which the two codes take turns."""
    return sum(codes[i % 2] << (bits * i) for i in range(mode.rate))


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("act_unsigned,weight_unsigned", SIGNS)
def test_extreme_codes_in_all_lanes(multiplier, act_unsigned, weight_unsigned):
    lanes = 16
    dut = MacArray(rows=1, cols=1, lanes=lanes, accs=1, multiplier=multiplier, taps=0)
    sums = []
    for mode in Precision:
        act_bits, weight_bits = (4 if mode is Precision.A4W4 else 8), (8 if mode is Precision.A8W8 else 4)
        codes = product(extremes(act_unsigned, act_bits), repeat=2)
        weights = list(product(extremes(weight_unsigned, weight_bits), repeat=2))
        for a, w in product(codes, weights):
            sums.append(
                Sum(
                    mode=mode,
                    a=np.full((2, 1, lanes), lane(mode, a, act_bits)),
                    w=np.full((2, 1, lanes), lane(mode, w, weight_bits)),
                    act_unsigned=act_unsigned,
                    weight_unsigned=weight_unsigned,
                )
            )
    check_each(dut, sums)


def check_each(dut, sums: list[Sum]):
    """Every sum replaces the one before in a single accumulator, which is read as soon as the contract allows."""

    async def bench(ctx):
        for s in sums:
            for phase in range(len(s.a)):
                await present(ctx, dut, s, phase)
            await ctx.tick().repeat(dut.DRAIN_LATENCY - 1)
            assert await drain(ctx, dut, s.buffer, s.t, 0) == [s.term(0, 0)], s

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("act_unsigned,weight_unsigned", SIGNS)
def test_extreme_groups(multiplier, act_unsigned, weight_unsigned):
    """A group of four phases with the largest sums and scales, at every shift."""
    lanes = 4
    dut = MacArray(rows=1, cols=1, lanes=lanes, accs=1, multiplier=multiplier, taps=0)
    sums = []
    for a, w in product(extremes(act_unsigned, 8), extremes(weight_unsigned, 4)):
        for sm, kc, ka in [(127, 7, 0), (-128, 7, 7), (-128, 0, 1), (0, 7, 3)]:
            shape = (4, 1, lanes)
            group = Sum(
                mode=Precision.A8W4, a=np.full(shape, a * 0x101), w=np.full(shape, w * 0x1111), scaled=True,
                act_unsigned=act_unsigned, weight_unsigned=weight_unsigned, sd=[255], sm=[sm], kc=[kc], ka=[ka],
            )  # fmt: skip
            sums.append(group)
    check_each(dut, sums)


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_sums_follow_each_other_into_one_accumulator(multiplier):
    """A finish in every cycle, of groups and plain sums by turns, with one accumulator, until it overflows."""
    lanes = 8
    dut = MacArray(rows=1, cols=1, lanes=lanes, accs=1, multiplier=multiplier, taps=0)
    full = np.full((1, 1, lanes), 0x7777)
    scales = dict(ka=[0], sd=[255], sm=[127], kc=[7])
    sums = [Sum(mode=Precision.A4W4, a=full, w=full, scaled=i % 3 != 2, overwrite=i == 0, **scales) for i in range(60)]
    twice = np.full((2, 1, lanes), 0x7F7F)
    big = Sum(mode=Precision.A8W4, a=twice, w=twice & 0x77, scaled=True, overwrite=False, **scales)
    sums += [big] * 40 + sums[1:4]
    assert any(accumulate(sums, 1, 1)[1])
    check(dut, 1, 1, sums)
