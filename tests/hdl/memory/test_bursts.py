"""Burst splitter: covers each segment, legal bursts, one a cycle."""

import random

import pytest

from headrace.memory.bursts import BurstSplitter

from .bus import simulate


@pytest.mark.parametrize("beat,burst_beats", [(4, 8), (8, 4), (16, 16), (64, 16)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_segments(beat: int, burst_beats: int, stall: float) -> None:
    seed = beat * 10 + burst_beats
    print("seed", seed)
    rng = random.Random(seed)
    dut = BurstSplitter(axi_bytes=beat, burst_beats=burst_beats)
    segments = [(rng.randrange(1 << 20), rng.choice([1, beat, rng.randrange(1, 9000)])) for _ in range(12)]
    bursts: list[dict[str, int]] = []

    async def bench(ctx):  # type: ignore[no-untyped-def]
        waiting = list(segments)
        cycles = 0
        while len([b for b in bursts if b["last"]]) < len(segments):
            ctx.set(dut.i.valid, bool(waiting))
            if waiting:
                ctx.set(dut.i.p.address, waiting[0][0])
                ctx.set(dut.i.p.bytes, waiting[0][1])
            ctx.set(dut.o.ready, rng.random() >= stall)
            _, _, taken, valid, ready, burst = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, dut.o.ready, dut.o.payload
            )
            cycles += 1
            if taken and waiting:
                waiting.pop(0)
            if valid and ready:
                bursts.append({k: burst[k] for k in ("address", "beats", "offset", "bytes", "last")})
        if not stall:
            assert cycles == len(bursts) + dut.LATENCY

    simulate(dut, bench)
    queue = list(bursts)
    for address, size in segments:
        while size:
            burst = queue.pop(0)
            assert burst["address"] % beat == 0 and burst["address"] + burst["offset"] == address
            assert burst["address"] // 4096 == (burst["address"] + burst["beats"] * beat - 1) // 4096
            assert burst["beats"] == -(-(burst["offset"] + burst["bytes"]) // beat) <= burst_beats
            address, size = address + burst["bytes"], size - burst["bytes"]
            assert burst["last"] == (size == 0)
