"""Row coordinates against the division the hardware avoids."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.mac.rows import RowWalker


def random_job(rng, accs):
    ilv = int(rng.integers(0, 3)) if accs >= 4 else int(rng.integers(0, 2)) if accs >= 2 else 0
    groups = accs >> ilv
    job = dict(
        index=int(rng.integers(0, 1 << 16)), ilv=ilv, in_p0=int(rng.integers(0, 500)), in_w=int(rng.integers(1, 40)),
        out_w=int(rng.integers(1, 12)), m_count=int(rng.integers(1, 60)), stride_y=int(rng.integers(1, 4)),
        stride_x=int(rng.integers(1, 4)), pad_top=int(rng.integers(-2, 4)), pad_left=int(rng.integers(-2, 4)),
        n_tiles=int(rng.integers(1, 4)), m_tiles=int(rng.integers(1, 4)),
        t_count=int(rng.integers(1, groups + 1)) << ilv, t_last=int(rng.integers(1, groups + 1)) << ilv,
    )  # fmt: skip
    return job


def expected_tiles(job, rows):
    width = 1 << job["ilv"]
    for n in range(job["n_tiles"]):
        for mt in range(job["m_tiles"]):
            n_last = mt == job["m_tiles"] - 1
            used = job["t_last"] if n_last else job["t_count"]
            table = []
            for t in range(used):
                for r in range(rows):
                    m = mt * job["t_count"] * rows + t // width * rows * width + r * width + t % width
                    iy = m // job["out_w"] * job["stride_y"] - job["pad_top"]
                    ix = m % job["out_w"] * job["stride_x"] - job["pad_left"]
                    table.append((iy, ix, job["in_p0"] + iy * job["in_w"] + ix, int(m < job["m_count"])))
            yield used, int(n_last), int(n_last and n == job["n_tiles"] - 1), table


def neighbours(job, group):
    """Whether the rows' pixels follow each other in one output row, below m_count."""
    iy, ix, _, _ = group[0]
    last_ox = (ix + job["pad_left"]) // job["stride_x"] + len(group) - 1
    in_row = all(row == (iy, ix + r * job["stride_x"], row[2], 1) for r, row in enumerate(group))
    return int(job["ilv"] == 0 and job["stride_x"] == 1 and in_row and last_ox < job["out_w"])


@pytest.mark.parametrize("rows,accs", [(1, 3), (3, 2), (4, 4), (2, 1)])
def test_tables(rows, accs):
    rng = np.random.default_rng(rows * 10 + accs)
    dut = RowWalker(rows=rows, accs=accs)
    jobs = [random_job(rng, accs) for _ in range(12)]
    jobs.append(jobs[0] | dict(ilv=0, stride_x=1, out_w=rows, m_count=rows, n_tiles=1, t_count=1, t_last=1))
    seen = set()

    async def feed(ctx):
        for job in jobs:
            ctx.set(dut.job.payload, job)
            ctx.set(dut.job.valid, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.valid, 0)

    async def check(ctx):
        for job in jobs:
            for used, n_last, last, table in expected_tiles(job, rows):
                while not ctx.get(dut.tile.valid) or rng.random() < 0.3:
                    await ctx.tick()
                tile = ctx.get(dut.tile.payload)
                assert (tile.t_used, tile.n_last, tile.last) == (used, n_last, last), job
                got = []
                for t in range(used):
                    ctx.set(dut.t, t)
                    for r in range(rows):
                        row = ctx.get(dut.row[r])
                        got.append((row.iy, row.ix, row.pixel, row.valid))
                    assert ctx.get(dut.contiguous) == neighbours(job, got[-rows:]), job
                    seen.add(ctx.get(dut.contiguous))
                    await ctx.tick()
                assert got == table, job
                ctx.set(dut.tile.ready, 1)
                await ctx.tick()
                ctx.set(dut.tile.ready, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(feed, background=True)
    sim.add_testbench(check)
    sim.run()
    assert seen == {0, 1}


def test_pace():
    """The walk's length, then a group a cycle, without a pause between tiles and n tiles."""
    rows, ilv = 4, 1
    dut = RowWalker(rows=rows, accs=4)
    job = random_job(np.random.default_rng(0), 4) | dict(ilv=ilv, n_tiles=3, m_tiles=2, t_count=4, t_last=2)

    async def bench(ctx):
        ctx.set(dut.job.payload, job)
        ctx.set(dut.job.valid, 1)
        ctx.set(dut.tile.ready, 1)
        await ctx.tick()
        ctx.set(dut.job.valid, 0)
        ready_at = []
        for cycle in range(60):
            if ctx.get(dut.tile.valid):
                ready_at.append(cycle)
            await ctx.tick()
        setup = ((rows - 1) << ilv) + 1 + 2
        assert ready_at == [setup + 4, setup + 6, setup + 10, setup + 12, setup + 16, setup + 18]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
