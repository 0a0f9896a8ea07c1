"""The parts LOAD and STORE are made of: loop walker, chunker, realigner."""

import random
from typing import Any

import pytest

from headrace.memory.chunks import Chunker
from headrace.memory.realign import Realigner
from headrace.memory.walk import SegmentWalker

from .bus import simulate


def source(items: list[dict[str, int]], port: Any, chance: float, rng: random.Random) -> Any:
    """Process that puts `items` into a stream."""

    async def process(ctx: Any) -> None:
        for item in items:
            while rng.random() > chance:
                await ctx.tick()
            ctx.set(port.payload, item)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    return process


def sink(port: Any, count: int, got: list[Any], chance: float, rng: random.Random) -> Any:
    """Bench that takes `count` items; appends the number of cycles as the last entry."""

    async def bench(ctx: Any) -> None:
        cycles = 0
        while len(got) < count:
            ctx.set(port.ready, rng.random() <= chance)
            _, _, ready, valid, payload = await ctx.tick().sample(port.ready, port.valid, port.payload)
            cycles += 1
            assert cycles < 10000
            if ready and valid:
                got.append(payload)
        got.append(cycles)

    return bench


@pytest.mark.parametrize("chance", [1.0, 0.6])
def test_walker(chance: float) -> None:
    rng = random.Random(1)
    walks = [
        {
            "ddr": 1000,
            "pixel": 5,
            "n1": 3,
            "n2": 2,
            "n3": 2,
            "s1": 64,
            "s2": -200,
            "s3": 1 << 20,
            "d1": 1,
            "d2": -9,
            "d3": 50,
        },
        {
            "ddr": (1 << 40) - 4,
            "pixel": 0,
            "n1": 1,
            "n2": 1,
            "n3": 1,
            "s1": 0,
            "s2": 0,
            "s3": 0,
            "d1": 0,
            "d2": 0,
            "d3": 0,
        },
        {
            "ddr": 7,
            "pixel": 1,
            "n1": 1,
            "n2": 4,
            "n3": 3,
            "s1": 9,
            "s2": 5,
            "s3": -1,
            "d1": 7,
            "d2": -524288,
            "d3": 524287,
        },
    ]
    expected = []
    for w in walks:
        for i3 in range(w["n3"]):
            for i2 in range(w["n2"]):
                for i1 in range(w["n1"]):
                    address = w["ddr"] + i1 * w["s1"] + i2 * w["s2"] + i3 * w["s3"]
                    pixel = w["pixel"] + i1 * w["d1"] + i2 * w["d2"] + i3 * w["d3"]
                    last = (i1, i2, i3) == (w["n1"] - 1, w["n2"] - 1, w["n3"] - 1)
                    expected.append((address % (1 << 40), pixel, int(last)))
    dut = SegmentWalker()
    got: list[Any] = []
    simulate(dut, sink(dut.o, len(expected), got, chance, rng), source(walks, dut.i, chance, rng))
    cycles = got.pop()
    assert [(s.address, s.pixel, s.last) for s in got] == expected
    if chance == 1:
        assert cycles == len(expected) + len(walks) * dut.LATENCY


@pytest.mark.parametrize("unit", [4, 8, 16])
@pytest.mark.parametrize("chance", [1.0, 0.6])
def test_chunker(unit: int, chance: float) -> None:
    rng = random.Random(unit)
    runs = [
        {"offset": rng.randrange(unit), "size": rng.choice([1, unit, rng.randrange(1, 70)]), "last": rng.randrange(2)}
        for _ in range(20)
    ]
    expected = []
    for run in runs:
        at, end = run["offset"], run["offset"] + run["size"]
        while at < end:
            count = min(unit - at % unit, end - at)
            expected.append((at % unit, count, int(at + count == end), int(at + count == end and run["last"])))
            at += count
    dut = Chunker(unit=unit, size_bits=16)
    got: list[Any] = []
    simulate(dut, sink(dut.o, len(expected), got, chance, rng), source(runs, dut.i, chance, rng))
    cycles = got.pop()
    assert [(c.offset, c.count, c.end, c.last) for c in got] == expected
    if chance == 1:
        assert cycles == len(expected) + dut.LATENCY


def cut(rng: random.Random, total: int, unit: int, aligned: bool) -> list[tuple[int, int]]:
    out = []
    while total:
        offset = 0 if aligned else rng.randrange(unit)
        count = min(total, unit if aligned else rng.randrange(1, unit - offset + 1))
        out.append((offset, count))
        total -= count
    return out


@pytest.mark.parametrize("size_in,size_out", [(4, 4), (4, 16), (16, 4), (16, 8)])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("chance", [1.0, 0.6])
def test_realigner(size_in: int, size_out: int, aligned: bool, chance: float) -> None:
    rng = random.Random(size_in * 100 + size_out)
    stream = rng.randbytes(16 * max(size_in, size_out))
    units, at = [], 0
    for offset, count in cut(rng, len(stream), size_in, aligned):
        value = bytearray(rng.randbytes(size_in))
        value[offset : offset + count] = stream[at : at + count]
        units.append({"data": int.from_bytes(value, "little"), "offset": offset, "count": count})
        at += count
    wanted = cut(rng, len(stream), size_out, aligned)
    chunks = [{"offset": o, "count": c, "tag": i} for i, (o, c) in enumerate(wanted)]
    dut = Realigner(in_bytes=size_in, out_bytes=size_out, tag=16)
    got: list[Any] = []
    sources = source(units, dut.i, chance, rng), source(chunks, dut.chunk, chance, rng)
    simulate(dut, sink(dut.o, len(chunks), got, chance, rng), *sources)
    cycles, at = got.pop(), 0
    for item, (offset, count) in zip(got, wanted):
        assert item.mask == ((1 << count) - 1) << offset
        assert item.data.to_bytes(size_out, "little")[offset : offset + count] == stream[at : at + count]
        at += count
    assert [item.tag for item in got] == list(range(len(got)))
    if chance == 1 and aligned:
        assert cycles == max(len(units), len(chunks)) + dut.LATENCY
