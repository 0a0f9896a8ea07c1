"""Reduction over beats and lanes against plain Python, with the exact latency."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.dataflow.reduce import Reducer
from headrace.isa import Reduce

MERGE = {Reduce.SUM: lambda a, b: a + b, Reduce.MAX: max, Reduce.MIN: min}
IDENTITY = {Reduce.SUM: 0, Reduce.MAX: -(1 << 31), Reduce.MIN: (1 << 31) - 1}


def wrapped(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


class Model:
    """What leaves the reducer for each beat; a pass is a run of beats of one queue with one context."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.state: list[list[int] | None] = [None, None]
        self.count = [0, 0]

    def beat(self, beat: dict) -> dict:
        kind, queue, values = beat["kind"], beat["queue"], list(beat["result"])
        emitted = {"valid": beat["valid"], "last": beat["last"], "lanes": beat["lanes"]}
        if beat["valid"] and kind != Reduce.NONE:
            if beat["across"]:
                values = [v if lane < beat["lanes"] else IDENTITY[kind] for lane, v in enumerate(values)]
            if self.count[queue]:
                values = [wrapped(MERGE[kind](a, b)) for a, b in zip(self.state[queue], values)]
            self.state[queue] = values
            self.count[queue] += 1
            if self.count[queue] >= beat["repeat"]:
                self.count[queue] = 0
                if beat["across"]:
                    total = values[0]
                    for value in values[1:]:
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
    for queue in (0, 1) * 14:
        context = {
            "kind": rng.choice(list(Reduce)), "across": rng.randrange(2), "repeat": rng.randrange(5),
            "to_y": rng.randrange(2), "queue": queue,
        }  # fmt: skip
        beats = rng.randrange(1, 9)
        for i in range(beats):
            limit = rng.choice((100, 1 << 31))
            values = [[rng.randrange(-limit, limit) for _ in range(lanes)] for _ in range(2)]
            queues[queue].append({
                **context, "valid": int(rng.random() < 0.9), "last": int(i == beats - 1),
                "lanes": rng.choice((lanes, rng.randrange(lanes + 1))), "result": values[0], "kept": values[1],
            })  # fmt: skip
    out: list[dict | None] = []
    while any(queues):
        queue = rng.choice([q for q in range(2) if queues[q]])
        out.append(queues[queue].pop(0) if rng.random() < 0.8 else None)
    return out


@pytest.mark.parametrize("lanes", [1, 3, 8, 9, 20])
def test_reduce(lanes):
    seed = 30 + lanes
    print("seed", seed)
    beats = passes(random.Random(seed), lanes)
    latency, model = Reducer.latency(lanes), Model(lanes)
    dut = Reducer(lanes=lanes, contexts=1)

    async def bench(ctx):
        for cycle in range(len(beats) + latency):
            beat = beats[cycle] if cycle < len(beats) else None
            ctx.set(dut.tag.present, beat is not None)
            ctx.set(dut.tag.valid, 0)
            if beat is not None:
                for name in ("valid", "last", "lanes", "queue"):
                    ctx.set(getattr(dut.tag, name), beat[name])
                for name in ("kind", "across", "repeat", "to_y"):
                    ctx.set(getattr(dut, name), beat[name])
                for lane in range(lanes):
                    ctx.set(dut.result[lane], beat["result"][lane] & 0xFFFFFFFF)
                    ctx.set(dut.kept[lane], beat["kept"][lane] & 0xFFFFFFFF)
            if cycle >= latency:
                check(ctx, beats[cycle - latency])
            await ctx.tick()

    def check(ctx, beat):
        o = dut.o
        assert ctx.get(o.tag.present) == (beat is not None)
        if beat is None:
            return
        expected = model.beat(beat)
        assert (ctx.get(o.tag.valid), ctx.get(o.tag.last)) == (expected["valid"], expected["last"])
        if expected["valid"]:
            assert ctx.get(o.tag.lanes) == expected["lanes"]
            for name in "xy":
                assert [wrapped(ctx.get(getattr(o, name)[lane])) for lane in range(lanes)] == expected[name]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
