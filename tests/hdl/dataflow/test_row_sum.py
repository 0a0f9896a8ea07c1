"""Sums of rows against the order of the specification, for every number of lanes."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.dataflow.row_sum import RowSum

from .reference import row_sum

SPECIALS = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x00000001, 0x807FFFFF, 0x7F7FFFFF, 0xFF7FFFFF]


def element(rng: random.Random, special: float) -> int:
    if rng.random() < special:
        return rng.choice(SPECIALS)
    return rng.randrange(2) << 31 | rng.randrange(110, 140) << 23 | rng.getrandbits(23)


def row(rng: random.Random, lanes: int, beats: int, queue: int, special: float, whole: bool) -> list[dict]:
    """Beats of a row; one that is not whole lacks its end."""
    out = []
    for number in range(beats):
        x = [element(rng, special) for _ in range(lanes)]
        valid = rng.choice((lanes, lanes, rng.randrange(lanes + 1)))
        out.append({
            "queue": queue, "first": number == 0, "ends": whole and number == beats - 1, "x": x, "lanes": valid,
            "mark": rng.randrange(2),
        })  # fmt: skip
    return out


def lengths(lanes: int) -> list[int]:
    """Single beats, rows that end in every place of a block, more than eight and more than sixteen blocks."""
    block, period = max(1, 32 // lanes), 256 // lanes
    some = [1, 1, 1, 2, 3, block, block + 1, 2 * block - 1, 3 * block, period, period + 1, period + block + 1]
    return some if lanes < 4 else [*some, 2 * period, 2 * period + 1, 2 * period + 3 * block - 1]


def drive(dut, beats: list[dict | None], lanes: int) -> list[tuple[int, int] | None]:
    """For each slot what leaves `LATENCY` cycles later."""
    out: list[tuple[int, int] | None] = []

    async def bench(ctx):
        for cycle in range(len(beats) + RowSum.LATENCY):
            beat = beats[cycle] if cycle < len(beats) else None
            ctx.set(dut.valid, beat is not None)
            if beat is not None:
                for name in ("queue", "first", "ends", "mark", "lanes"):
                    ctx.set(getattr(dut, name), beat[name])
                for lane in range(lanes):
                    ctx.set(dut.x[lane], beat["x"][lane])
            if cycle >= RowSum.LATENCY:
                out.append((ctx.get(dut.sum.value), ctx.get(dut.sum.mark)) if ctx.get(dut.sum.valid) else None)
            else:
                assert not ctx.get(dut.sum.valid)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return out


def expected(beats: list[dict | None]) -> list[tuple[int, int] | None]:
    rows: list[list[int]] = [[], []]
    out: list[tuple[int, int] | None] = []
    for beat in beats:
        out.append(None)
        if beat is None:
            continue
        elements = rows[beat["queue"]]
        if beat["first"]:
            elements.clear()
        elements += [v if lane < beat["lanes"] else 0 for lane, v in enumerate(beat["x"])]
        if beat["ends"]:
            out[-1] = row_sum(elements), beat["mark"]
    return out


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32, 64])
def test_rows(lanes):
    """Rows of both queues, interleaved beat by beat, back to back and with gaps; some end short, some never."""
    seed = 50 + lanes
    print("seed", seed)
    rng = random.Random(seed)
    queues: list[list[dict]] = [[], []]
    for queue in range(2):
        some = lengths(lanes)
        rng.shuffle(some)
        for number, beats in enumerate(some):
            queues[queue] += row(rng, lanes, beats, queue, (0.0, 0.02, 0.3)[number % 3], rng.random() < 0.9)
    beats: list[dict | None] = []
    while any(queues):
        queue = rng.choice([q for q in range(2) if queues[q]])
        run = rng.choice((1, 2, 40))
        beats += queues[queue][:run]
        del queues[queue][:run]
        beats += [None] * rng.choice((0, 0, 0, 1, 7))
    assert drive(RowSum(lanes=lanes), beats, lanes) == expected(beats)


@pytest.mark.parametrize("lanes", [1, 8, 64])
def test_one_queue_without_a_gap(lanes):
    """Rows follow each other in every cycle: nothing of a row is left in the next."""
    rng = random.Random(lanes)
    beats: list[dict | None] = []
    for length in [1] * 12 + [2] * 6 + [8 * max(1, 32 // lanes) + 1, 1, 256 // lanes, 1, 1, 3]:
        beats += row(rng, lanes, length, 1, 0.01, True)
    assert drive(RowSum(lanes=lanes), beats, lanes) == expected(beats)


def test_only_zeros():
    """A row of -0 has a sum of +0: what is missing counts as +0."""
    beats = [{"queue": 0, "first": 1, "ends": 1, "mark": 0, "lanes": 8, "x": [0x80000000] * 8}]
    assert drive(RowSum(lanes=8), beats, 8) == [(0, 0)]


def test_latency():
    assert RowSum.LATENCY == 27
