"""Reduction over beats and lanes against plain Python, with the exact latency."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.dataflow.reduce import Reducer
from headrace.isa import Reduce

from .reference import ordered

MERGE = {
    Reduce.SUM: lambda a, b: a + b, Reduce.MAX: max, Reduce.MIN: min,
    Reduce.FMAX: lambda a, b: max(a, b, key=key), Reduce.FMIN: lambda a, b: min(a, b, key=key),
}  # fmt: skip
IDENTITY = {
    Reduce.SUM: 0, Reduce.MAX: -(1 << 31), Reduce.MIN: (1 << 31) - 1,
    Reduce.FMAX: -1, Reduce.FMIN: (1 << 31) - 1,  # NaN of each sign with all bits set
}  # fmt: skip


def key(value: int) -> int:
    return ordered(value & 0xFFFFFFFF)


def wrapped(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


class Model:
    """What leaves the reducer for each beat; a pass is a run of beats of one queue with one context."""

    def __init__(self, lanes: int, float_sum: bool) -> None:
        self.lanes, self.float_sum = lanes, float_sum
        self.state: list[list[int] | None] = [None, None]
        self.count = [0, 0]

    def beat(self, beat: dict) -> dict:
        kind, queue, values = beat["kind"], beat["queue"], list(beat["result"])
        emitted = {name: beat[name] for name in ("valid", "last", "ends", "lanes")}
        sums = kind == Reduce.FSUM and self.float_sum
        if beat["valid"] and (kind in MERGE or sums):
            emitted["sums"] = sums, self.count[queue] == 0
            across = beat["across"] or sums
            if sums:
                values = [0] * self.lanes  # another block finds it
            elif across:
                values = [v if lane < beat["lanes"] else IDENTITY[kind] for lane, v in enumerate(values)]
            if self.count[queue] and not sums:
                values = [wrapped(MERGE[kind](a, b)) for a, b in zip(self.state[queue], values)]
            self.state[queue] = values
            self.count[queue] += 1
            if beat["ends"] if beat["row"] else self.count[queue] >= beat["repeat"]:
                self.count[queue] = 0
                if across:
                    total = values[0]
                    for value in values[1:] if not sums else []:
                        total = wrapped(MERGE[kind](total, value))
                    values, emitted["lanes"] = [total] * self.lanes, self.lanes
            else:
                emitted["valid"] = 0
        if beat["last"]:
            self.count[queue] = 0
        x, y = (beat["kept"], values) if beat["to_y"] else (values, beat["kept"])
        return {**emitted, "x": x, "y": y}


def passes(rng: random.Random, lanes: int) -> list[dict | None]:
    """Passes of both queues, interleaved, with empty slots."""
    queues: list[list[dict]] = [[], []]
    for queue in (0, 1) * 30:
        context = {
            "kind": rng.randrange(8), "across": rng.randrange(2), "repeat": rng.randrange(5),
            "to_y": rng.randrange(2), "queue": queue, "row": rng.randrange(2),
        }  # fmt: skip
        beats, row = rng.randrange(1, 9), rng.randrange(1, 5)
        for i in range(beats):
            limit = rng.choice((100, 1 << 31))
            values = [[rng.randrange(-limit, limit) for _ in range(lanes)] for _ in range(2)]
            queues[queue].append({
                **context, "valid": int(rng.random() < 0.9), "last": int(i == beats - 1),
                "ends": int(i % row == row - 1),
                "lanes": rng.choice((lanes, rng.randrange(lanes + 1))), "result": values[0], "kept": values[1],
            })  # fmt: skip
    out: list[dict | None] = []
    while any(queues):
        queue = rng.choice([q for q in range(2) if queues[q]])
        out.append(queues[queue].pop(0) if rng.random() < 0.8 else None)
    return out


@pytest.mark.parametrize(("lanes", "float_sum"), [(1, True), (3, False), (8, True), (9, False), (20, False)])
def test_reduce(lanes, float_sum):
    seed = 30 + lanes
    print("seed", seed)
    beats = passes(random.Random(seed), lanes)
    latency, model = Reducer.latency(lanes), Model(lanes, float_sum)
    dut = Reducer(lanes=lanes, contexts=1, float_sum=float_sum)
    marks: list[tuple | None] = []

    async def bench(ctx):
        for cycle in range(len(beats) + latency):
            beat = beats[cycle] if cycle < len(beats) else None
            ctx.set(dut.tag.present, beat is not None)
            ctx.set(dut.tag.valid, 0)
            if beat is not None:
                for name in ("valid", "last", "ends", "lanes", "queue"):
                    ctx.set(getattr(dut.tag, name), beat[name])
                for name in ("kind", "across", "row", "repeat", "to_y"):
                    ctx.set(getattr(dut, name), beat[name])
                for lane in range(lanes):
                    ctx.set(dut.result[lane], beat["result"][lane] & 0xFFFFFFFF)
                    ctx.set(dut.kept[lane], beat["kept"][lane] & 0xFFFFFFFF)
            marks.append((ctx.get(dut.sums), ctx.get(dut.first), ctx.get(dut.complete)))
            if cycle >= latency:
                check(ctx, beats[cycle - latency], *marks[cycle - latency])
            await ctx.tick()

    def check(ctx, beat, sums, first, complete):
        o = dut.o
        assert ctx.get(o.tag.present) == (beat is not None)
        if beat is None:
            return
        expected = model.beat(beat)
        for name in ("valid", "last", "ends"):
            assert ctx.get(getattr(o.tag, name)) == expected[name]
        marked, begins = expected.get("sums", (False, False))
        assert sums == marked
        if marked:
            assert (first, complete) == (begins, expected["valid"])
        if expected["valid"]:
            assert ctx.get(o.tag.lanes) == expected["lanes"]
            for name in ("xy", "yx"[beat["to_y"]])[marked]:
                assert [wrapped(ctx.get(getattr(o, name)[lane])) for lane in range(lanes)] == expected[name]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
