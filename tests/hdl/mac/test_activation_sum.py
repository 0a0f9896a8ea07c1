"""Sums of a row's activations against numpy: both widths, signedness, groups of several phases, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.config import Precision
from headrace.mac.activation_sum import ActivationSum

from .sums import ACT_BITS, decode


@pytest.mark.parametrize("lanes", [2, 8, 16])
def test_sums_of_groups(lanes):
    seed = lanes
    print("seed", seed)
    rng = np.random.default_rng(seed)
    dut = ActivationSum(lanes=lanes)
    phases, expected = [], {}  # (codes, mode, unsigned, restart) or None; cycle of a sum's end to the sum
    for i in range(40):
        mode = Precision.A8W4 if lanes == 16 or rng.random() < 0.5 else Precision.A4W4
        unsigned = bool(rng.integers(2))
        total = 0
        for phase in range(32 // (mode.rate * lanes)):
            extreme = [0x7F7F, 0x8080, 0xFFFF, 0x8888][i % 4] if i < 8 else None
            codes = rng.integers(0, 1 << 16, lanes) if extreme is None else np.full(lanes, extreme)
            phases.append((codes, mode, unsigned, phase == 0))
            total += int(decode(codes, ACT_BITS[mode], mode.rate, unsigned).sum())
            if rng.random() < 0.3:
                phases.append(None)
        expected[max(j for j, p in enumerate(phases) if p)] = total

    async def bench(ctx):
        for cycle in range(len(phases) + 3):
            stages = [phases[cycle - i] if 0 <= cycle - i < len(phases) else None for i in range(3)]
            if cycle - 3 in expected:
                assert ctx.get(dut.xsum) == expected[cycle - 3]
            for name, stage in zip(("load", "add", "accumulate"), stages, strict=True):
                ctx.set(getattr(dut, name), stage is not None)
            if stages[0]:
                codes, mode, unsigned, _ = stages[0]
                for j, code in enumerate(codes):
                    ctx.set(dut.a[j], int(code))
                ctx.set(dut.high_signed, not unsigned)
                ctx.set(dut.low_signed, not unsigned and mode is Precision.A4W4)
            if stages[2]:
                ctx.set(dut.restart, stages[2][3])
                ctx.set(dut.wide, stages[2][1] is Precision.A8W4)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
