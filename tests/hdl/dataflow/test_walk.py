"""Loop walkers against nested Python loops."""

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.dataflow.walk import LoopNest, TileWalk


def simulate(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def test_loop_nest():
    """Random nests one after the other, `load` with the last `advance` of the previous one."""
    seed = 11
    print("seed", seed)
    rng = np.random.default_rng(seed)
    dut = LoopNest(loops=3, widths=(26, 24))

    async def bench(ctx):
        for _ in range(20):
            counts = [int(v) for v in rng.integers(1, 5, 3)]
            steps = [[int(v) for v in rng.integers(-(1 << 15), 1 << 15, 3)] for _ in range(2)]
            base = [int(v) for v in rng.integers(0, 1 << 16, 2)]
            for c in range(2):
                ctx.set(getattr(dut, f"base_{c}"), base[c])
            ctx.set(dut.load, 1)
            await ctx.tick()
            ctx.set(dut.load, 0)
            ctx.set(dut.advance, 0)
            for i in range(3):
                ctx.set(dut.counts[i], counts[i])
                for c in range(2):
                    ctx.set(getattr(dut, f"steps_{c}")[i], steps[c][i])
            nest = [tuple(reversed(v)) for v in itertools.product(*(range(n) for n in reversed(counts)))]
            for number, counters in enumerate(nest):
                while rng.integers(0, 3) == 0:
                    await ctx.tick()
                assert tuple(ctx.get(dut.counters[i]) for i in range(3)) == counters
                for c in range(2):
                    expected = base[c] + sum(k * s for k, s in zip(counters, steps[c]))
                    assert ctx.get(getattr(dut, f"position_{c}")) == expected
                assert ctx.get(dut.last) == (number == len(nest) - 1)
                ends = [all(k == n - 1 for k, n in zip(counters[: i + 1], counts)) for i in range(3)]
                assert ctx.get(dut.ends) == sum(end << i for i, end in enumerate(ends))
                ctx.set(dut.advance, 1)
                if number < len(nest) - 1:
                    await ctx.tick()
                    ctx.set(dut.advance, 0)

    simulate(dut, bench)


@pytest.mark.parametrize(("rows", "cols", "lanes"), [(1, 1, 1), (3, 5, 2), (2, 4, 4), (2, 3, 8)])
@pytest.mark.parametrize(("halves", "depthwise"), [(1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("ilv", [0, 1])
def test_tile_walk(rows, cols, lanes, halves, depthwise, ilv):
    dut = TileWalk(rows=rows, cols=cols, accs=8, lanes=lanes, halves=halves)
    used_halves = halves if depthwise else 1
    fields = {"n_tiles": 2, "m_tiles": 3, "t_count": 4, "t_last": 2, "ilv": ilv, "depthwise": depthwise}
    fields["channels"] = 2 * used_halves * cols - 1
    fields["m_count"] = 10 * rows - 1
    blocks = -(-cols // lanes)

    async def bench(ctx):
        for name, value in fields.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.load, 1)
        await ctx.tick()
        ctx.set(dut.load, 0)
        ctx.set(dut.advance, 1)
        for n, mt in itertools.product(range(2), range(3)):
            used = 2 if mt == 2 else 4
            for t, r, h, b in itertools.product(range(used), range(rows), range(used_halves), range(blocks)):
                m = mt * 4 * rows + ((t >> ilv) * rows + r << ilv) + t % (1 << ilv)
                block = n * used_halves + h
                channel = block * cols + b * lanes
                valid = min(lanes, cols - b * lanes, max(0, fields["channels"] - channel))
                expected = {
                    "t": t * used_halves + h, "row": r, "block": b, "pixel": m, "channel": channel,
                    "idx": block * blocks + b, "lanes": valid if m < fields["m_count"] else 0,
                    "first": t == r == h == b == 0, "t_used": used * used_halves, "final": (n, mt) == (1, 2),
                    "ends": b == blocks - 1,
                    "last": (t, r, h, b) == (used - 1, rows - 1, used_halves - 1, blocks - 1),
                }  # fmt: skip
                assert {name: ctx.get(getattr(dut, name)) for name in expected} == expected
                await ctx.tick()

    simulate(dut, bench)
