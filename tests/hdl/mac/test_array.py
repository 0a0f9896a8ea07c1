"""The array against numpy: phases, back-to-back accumulation, overwrite, drain, overflow, latencies."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.interfaces import ACC_LATENCY
from headrace.mac.array import MacArray

SIZES = [(1, 3, 4, 3), (3, 1, 2, 2), (2, 2, 2, 1)]


def pack(codes: np.ndarray) -> int:
    return int.from_bytes(codes.astype(np.int8).tobytes(), "little")


async def present(ctx, dut, a, w, *, t, buffer, overwrite, restart, finish):
    for r in range(a.shape[0]):
        ctx.set(dut.a[r], pack(a[r]))
    for c in range(w.shape[0]):
        ctx.set(dut.w[c], pack(w[c]))
    for name, value in dict(step=1, t=t, buffer=buffer, overwrite=overwrite, restart=restart, finish=finish).items():
        ctx.set(getattr(dut, name), value)
    await ctx.tick()
    ctx.set(dut.step, 0)


async def drain(ctx, dut, buffer, t, row):
    ctx.set(dut.drain_buffer, buffer)
    ctx.set(dut.drain_t, t)
    ctx.set(dut.drain_row, row)
    ctx.set(dut.drain_en, 1)
    await ctx.tick()
    ctx.set(dut.drain_en, 0)
    await ctx.tick().repeat(ACC_LATENCY - 1)
    return [int(np.int32(np.uint32(ctx.get(dut.drain_data[c])))) for c in range(len(dut.w))]


def run(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("rows,cols,lanes,accs", SIZES)
@pytest.mark.parametrize("gaps", [0.0, 0.4])
def test_matches_numpy(rows, cols, lanes, accs, gaps):
    rng = np.random.default_rng(rows * 100 + accs)
    dut = MacArray(rows=rows, cols=cols, lanes=lanes, accs=accs)
    entries = 5
    a = rng.integers(-128, 128, (2, entries, accs, rows, 2 * lanes))
    w = rng.integers(-128, 128, (2, entries, cols, 2 * lanes))
    a[0, 0], w[0, 0] = -128, -128  # the largest product sum
    expected = np.einsum("betrj,becj->btrc", a, w)

    async def bench(ctx):
        for b in range(2):
            for e in range(entries):
                for t in range(accs):
                    for phase in range(2):
                        while rng.random() < gaps:
                            await ctx.tick()
                        part = slice(phase * lanes, (phase + 1) * lanes)
                        await present(
                            ctx, dut, a[b, e, t, :, part], w[b, e, :, part], t=t, buffer=b, overwrite=e == 0,
                            restart=phase == 0, finish=phase == 1,
                        )  # fmt: skip
        await ctx.tick().repeat(dut.DRAIN_LATENCY - 1)
        got = [[[await drain(ctx, dut, b, t, r) for r in range(rows)] for t in range(accs)] for b in range(2)]
        assert (np.array(got) == expected).all()
        assert ctx.get(dut.overflow) == 0

    run(dut, bench)


def test_overflow_is_reported_after_the_latency():
    lanes = 32
    dut = MacArray(rows=1, cols=1, lanes=lanes, accs=1)
    full = np.full((1, lanes), -128)
    step = lanes * 128 * 128
    needed = -(-(1 << 31) // step)

    async def bench(ctx):
        for i in range(needed):
            assert ctx.get(dut.overflow) == 0
            await present(ctx, dut, full, full, t=0, buffer=0, overwrite=i == 0, restart=1, finish=1)
        flags = []
        for _ in range(dut.LATENCY + 1):
            flags.append(ctx.get(dut.overflow))
            await ctx.tick()
        assert flags == [0] * (dut.LATENCY - 1) + [1, 0]

    run(dut, bench)
