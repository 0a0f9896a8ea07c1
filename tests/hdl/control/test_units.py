"""Tokens, issue unit and counters on their own."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from headrace.config import machine
from headrace.control.counters import Counters
from headrace.control.issue import IssueUnit, limits_of
from headrace.control.tokens import Tokens
from headrace.isa import BY_NAME, Cause
from headrace.isa.assembler import encode, patch


def simulate(dut: Any, bench: Any) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_tokens_count_like_a_model() -> None:
    dut = Tokens(tokens=5, units=3)
    print("seed 1")
    rng = random.Random(1)

    async def bench(ctx: Any) -> None:
        counts = [0] * 5
        for cycle in range(1500):
            lean = 0.55 if cycle < 1000 else 0.3  # fill up to the top, then drain
            take, signal = [0, 0, 0], [0, 0, 0]
            for token in range(5):
                taken = counts[token] > 0 and rng.random() < 0.25
                given = rng.random() < lean + 0.4 * (token == 4) and (counts[token] < 255 or taken)
                take[rng.randrange(3)] |= taken << token
                signal[rng.randrange(3)] |= given << token
                counts[token] += given - taken
            ctx.set(dut.take, take)
            ctx.set(dut.signal, signal)
            await ctx.tick()
            ctx.set(dut.take, [0, 0, 0])
            assert ctx.get(dut.available) == sum((n > 0) << token for token, n in enumerate(counts))
            assert ctx.get(dut.full) == sum((n == 255) << token for token, n in enumerate(counts))

    simulate(dut, bench)


def _load_unit(scalars: int = 4) -> IssueUnit:
    command = BY_NAME["LOAD"]
    return IssueUnit(commands=(command,), limits=limits_of(command, machine("tiny")), scalars=scalars, in_flight=2)


async def _queue(ctx: Any, dut: IssueUnit, index: int, **fields: Any) -> None:
    ctx.set(dut.queue.payload.index, index)
    ctx.set(dut.queue.payload.cmd, int.from_bytes(encode("LOAD", **fields), "little"))
    ctx.set(dut.queue.valid, 1)


@pytest.mark.parametrize("patched", [False, True])
def test_issue_latency_and_patch(patched: bool) -> None:
    dut = _load_unit()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.scalars[3], 6)
        fields = {"patch1": patch("LOAD", "n2", register=3, shift=1)} if patched else {}
        await _queue(ctx, dut, 77, wait=[2, 30], n2=5, pix_bytes=1, n0=1, **fields)
        ctx.set(dut.available, 1 << 2)
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.queue.ready) and not ctx.get(dut.take) and not ctx.get(dut.issue.valid)
        ctx.set(dut.available, 1 << 2 | 1 << 30 | 1)
        assert ctx.get(dut.take) == 1 << 2 | 1 << 30 and ctx.get(dut.queue.ready)
        await ctx.tick()
        ctx.set(dut.queue.valid, 0)
        latency = 1
        while not ctx.get(dut.issue.valid):
            await ctx.tick()
            latency += 1
        assert latency == (IssueUnit.PATCHED_LATENCY if patched else IssueUnit.LATENCY)
        f = BY_NAME["LOAD"]["n2"]
        assert ctx.get(dut.issue.payload.cmd) >> f.offset & 0xFFFF == (17 if patched else 5)
        assert ctx.get(dut.issue.payload.index) == 77

    simulate(dut, bench)


def test_commands_in_flight_are_limited_and_signal_in_order() -> None:
    dut = _load_unit()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.issue.ready, 1)
        begun = 0
        for cycle in range(40):
            await _queue(ctx, dut, begun, signal=[begun])
            begun += ctx.get(dut.begin)
            if cycle == 20:
                assert begun == 2
            ctx.set(dut.done, cycle in (25, 26))
            if cycle in (25, 26):
                assert ctx.get(dut.signal) == 1 << cycle - 25
                assert (ctx.get(dut.end), ctx.get(dut.end_index)) == (1, cycle - 25)
            else:
                assert ctx.get(dut.signal) == 0
            await ctx.tick()
        assert begun == 4 and not ctx.get(dut.idle)

    simulate(dut, bench)


def test_token_overflow_names_command_and_token() -> None:
    dut = _load_unit()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.issue.ready, 1)
        ctx.set(dut.full, 1 << 9 | 1 << 11 | 1)
        await _queue(ctx, dut, 12, signal=[9, 11, 13])
        await ctx.tick().until(dut.begin)
        ctx.set(dut.queue.valid, 0)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        error = ctx.get(dut.error)
        assert (error.valid, error.cause, error.index, error.address) == (1, Cause.TOKEN, 12, 9)

    simulate(dut, bench)


def test_halt_stops_taking_and_offering() -> None:
    dut = _load_unit()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.halt, 1)
        await _queue(ctx, dut, 0)
        await ctx.tick().repeat(4)
        assert not ctx.get(dut.queue.ready)
        ctx.set(dut.halt, 0)
        await ctx.tick()
        ctx.set(dut.halt, 1)
        await ctx.tick().repeat(6)
        assert not ctx.get(dut.issue.valid)

    simulate(dut, bench)


def test_counters_snapshot_and_clear_in_one_cycle() -> None:
    dut = Counters(count=2)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.events, 0b10)
        await ctx.tick().repeat(300)
        ctx.set(dut.snapshot, 1)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert list(ctx.get(dut.values)) == [0, 300]
        await ctx.tick()
        assert list(ctx.get(dut.values)) == [0, 0]

    simulate(dut, bench)
