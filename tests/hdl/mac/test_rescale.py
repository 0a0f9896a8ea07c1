"""The use of group scales against integers, at the ends of every range."""

from __future__ import annotations

from itertools import product

import numpy as np
from amaranth.sim import Simulator

from headrace.mac.rescale import Rescale, ScalePipeline

from .sums import rounding_shift


def run(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def test_terms_of_consecutive_cycles():
    seed = 5
    print("seed", seed)
    rng = np.random.default_rng(seed)
    dut = Rescale(psum_bits=21)
    group = 32 * 255 * 15
    cases = list(product((-group, -1, group), (0, 1, 255), (-4096, 8160), (-128 << 7, -1, 127 << 7), (0, 1, 7)))
    for _ in range(100):
        psum, xsum = int(rng.integers(-group, group + 1)), int(rng.integers(-4096, 8161))
        offset = int(rng.integers(-128, 128)) << int(rng.integers(8))
        cases.append((psum, int(rng.integers(256)), xsum, offset, int(rng.integers(8))))
    cases += [(sign * 16 * 255 * 255, 8, 0, 0, ka) for sign in (1, -1) for ka in range(8)]

    async def bench(ctx):
        ctx.set(dut.scale, 1)
        ctx.set(dut.combine, 1)
        for i in range(len(cases) + 2):
            if i < len(cases):
                psum, sd, xsum, offset, _ = cases[i]
                for name, value in dict(psum=psum, sd=sd, xsum=xsum, offset=offset).items():
                    ctx.set(getattr(dut, name), value)
            if 1 <= i <= len(cases):
                ctx.set(dut.half, (1 << cases[i - 1][4]) >> 1)
            if i >= 2:
                psum, sd, xsum, offset, ka = cases[i - 2]
                ctx.set(dut.ka, ka)
                assert ctx.get(dut.term) == rounding_shift(sd * psum + offset * xsum, ka), cases[i - 2]
            await ctx.tick()

    run(dut, bench)


def test_scales_arrive_in_their_stages():
    dut = ScalePipeline(rows=2, cols=2)

    async def bench(ctx):
        for name, values in dict(ka=[3, 6], sd=[200, 7], sm=[-128, 5], kc=[7, 2]).items():
            for i, value in enumerate(values):
                ctx.set(getattr(dut, name)[i], value)
        sums = [dict(scaled=1, wide_weights=0), dict(scaled=1, wide_weights=1), dict(scaled=0, wide_weights=0)]
        expected = [([200, 7], [-128 << 7, 5 << 2], [3, 6]), ([8, 8], [0, 0], [3, 6]), ([1, 1], [0, 0], [0, 0])]
        for cycle in range(9):  # a gap of a cycle between the sums
            ctx.set(dut.take, cycle % 2 == 0 and cycle < 6)
            ctx.set(dut.valid, sum(1 << i for i in range(dut.STAGES) if cycle - i - 1 in (0, 2, 4)))
            for name, value in sums[min(cycle // 2, 2)].items():
                ctx.set(getattr(dut, name), value)
            for i, (sd, offset, ka) in enumerate(expected):
                if cycle == 2 * i + 3:
                    assert [ctx.get(sd_out) for sd_out in dut.sd_out] == sd
                    assert [ctx.get(offset_out) for offset_out in dut.offset_out] == offset
                if cycle == 2 * i + 4:
                    assert [ctx.get(half) for half in dut.half_out] == [(1 << k) >> 1 for k in ka]
                if cycle == 2 * i + 5:
                    assert [ctx.get(ka_out) for ka_out in dut.ka_out] == ka
            await ctx.tick()

    run(dut, bench)
