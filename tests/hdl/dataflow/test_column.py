"""One column: exact latency, tags, operands, reductions of two queues, bad addresses, clear."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.dataflow.column import Column
from headrace.isa import DataflowOp, Reduce, Source, encode_context

from .reference import row_sum

ADD = {"op": DataflowOp.IADD, "a": Source.X, "b": Source.MEM, "mem_base": 1, "mem_index": 1}
SUM = {"reduce": Reduce.SUM, "repeat": 3, "dst": 1}
PASS: dict[str, int] = {}


def run(beats, contexts, *, clear_at=None, lanes=1, float_sum=False):
    """Beats (dict of tag fields, x and y of one or all lanes) back to back; what leaves, one dict an occupied slot."""
    dut = Column(lanes=lanes, contexts=4, words=5, load_elements=1, float_sum=float_sum)
    out = []

    async def bench(ctx):
        for number, fields in enumerate(contexts):
            for word, value in enumerate(encode_context(**fields)):
                ctx.set(dut.load_context, 1)
                ctx.set(dut.load_word, number)
                ctx.set(dut.load_mask, 1 << word)
                ctx.set(dut.load_data[0], value)
                await ctx.tick()
        ctx.set(dut.load_context, 0)
        ctx.set(dut.load_mask, 1)
        for word in range(5):
            ctx.set(dut.load_memory, 1)
            ctx.set(dut.load_word, word)
            ctx.set(dut.load_data[0], 100 * word)
            await ctx.tick()
        ctx.set(dut.load_memory, 0)
        for cycle in range(len(beats) + Column.latency(lanes, float_sum) + 2):
            beat = beats[cycle] if cycle < len(beats) else None
            tag = dut.i.tag
            ctx.set(tag.present, beat is not None)
            ctx.set(tag.valid, beat is not None)
            ctx.set(dut.clear, cycle == clear_at)
            for name in ("last", "ends", "queue", "context", "idx"):
                ctx.set(getattr(tag, name), (beat or {}).get(name, 0))
            ctx.set(tag.lanes, (beat or {}).get("lanes", lanes))
            for lane in range(lanes):
                for name in "xy":
                    value = (beat or {}).get(name, 0)
                    ctx.set(getattr(dut.i, name)[lane], value[lane] if isinstance(value, list) else value)
            o = dut.o.tag
            if ctx.get(o.present):
                values = {
                    name: ctx.get(getattr(o, name))
                    for name in ("valid", "last", "ends", "queue", "idx", "bad", "lanes")
                }
                x, y = ([ctx.get(v[lane]) for lane in range(lanes)] for v in (dut.o.x, dut.o.y))
                out.append({"cycle": cycle, "x": x[0], "y": y[0], "all": (x, y), **values})
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return out


def test_latency_and_context_switch():
    """Every beat takes its own context; results arrive exactly LATENCY cycles later."""
    beats = [{"x": 10 + i, "y": 50 + i, "idx": i % 3, "context": i % 2} for i in range(7)]
    out = run(beats, [PASS, ADD])
    assert [o["cycle"] for o in out] == [i + Column.latency(1, False) for i in range(7)]
    for i, o in enumerate(out):
        assert o["x"] == (10 + i + 100 * (1 + i % 3) if i % 2 else 10 + i)
        assert (o["y"], o["idx"], o["valid"]) == (50 + i, i % 3, 1)


def test_codes_without_an_operation_pass():
    """Whatever the low bits of a code would name."""
    contexts = [{"op": code, "a": Source.X, "b": Source.X} for code in (25, 32 + DataflowOp.IADD, 63)]
    out = run([{"x": 7, "y": 9, "context": i} for i in range(3)], [*contexts])
    assert [(o["x"], o["y"]) for o in out] == [(7, 9)] * 3


def test_reductions_of_both_queues():
    """Interleaved queues keep their own partial sums; `last` drops an unfinished one but travels on."""
    epilogue = [{"x": 1 << i, "queue": 0, "y": i, "last": i == 3} for i in range(7)]
    vector = [{"x": 1000 * i, "queue": 1, "y": i} for i in range(6)]
    order = [0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
    sources = [iter(epilogue), iter(vector)]
    out = run([next(sources[q]) for q in order], [SUM])
    assert [o["queue"] for o in out] == order
    first = [(o["valid"], o["last"]) for o in out if o["queue"] == 0]
    assert first == [(0, 0), (0, 0), (1, 0), (0, 1), (0, 0), (0, 0), (1, 0)]
    sums = [o["y"] for o in out if o["valid"] and o["queue"] == 0]
    assert sums == [1 + 2 + 4, 16 + 32 + 64]
    assert [(o["x"], o["y"]) for o in out if o["valid"] and o["queue"] == 1] == [(2000, 3000), (5000, 12000)]


def test_word_beyond_the_memory():
    out = run([{"idx": 3, "context": 1}, {"idx": 4, "context": 1}, {"idx": 9}], [PASS, ADD])
    assert [(o["bad"], o["idx"]) for o in out] == [(0, 3), (1, 5), (0, 9)]


def test_clear():
    """Slots under way disappear, and a partial sum too."""
    beats = [{"x": 1}, {"x": 2}, None, None, {"x": 4}, {"x": 8}, {"x": 16}]
    out = run(beats, [SUM], clear_at=3)
    assert [(o["cycle"], o["valid"]) for o in out] == [(4 + 8, 0), (5 + 8, 0), (6 + 8, 1)]
    assert out[-1]["y"] == 28


@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_number_of_the_element(lanes):
    """Operand IDX as a and as b; sources without a name are x."""
    contexts = [
        {"op": DataflowOp.ISUB, "a": Source.IDX, "b": Source.Y},
        {"op": DataflowOp.IADD, "a": Source.X, "b": Source.IDX, "dst": 1},
        {"a": 5, "op": DataflowOp.ISUB, "b": 7},
        {"a": 6},
    ]
    indices = [0, 3, 65535, 131071]
    beats = [{"x": 5, "y": 2, "idx": idx, "context": c} for idx in indices for c in range(4)]
    for beat, o in zip(beats, run(beats, contexts, lanes=lanes)):
        element = [beat["idx"] * lanes + lane for lane in range(lanes)]
        assert (
            o["all"]
            == [
                ([n - 2 & 0xFFFFFFFF for n in element], [2] * lanes),
                ([5] * lanes, [5 + n for n in element]),
                ([0] * lanes, [2] * lanes),
                ([5] * lanes, [2] * lanes),
            ][beat["context"]]
        )


def bits(values):
    return [int(v) for v in np.asarray(values, np.float32).view(np.uint32)]


def rows_of(rng, queue, context, counts, lanes):
    """Rows of one pass; their last beats are not full."""
    out = []
    for count in counts:
        for number in range(count):
            ends = number == count - 1
            out.append({
                "x": bits(rng.normal(size=lanes)), "y": bits(rng.normal(size=lanes)), "queue": queue,
                "context": context, "ends": ends, "idx": number, "lanes": lanes - 1 if ends and lanes > 1 else lanes,
            })  # fmt: skip
    out[-1]["last"] = 1
    return out


@pytest.mark.parametrize("lanes", [1, 4])
def test_sums_of_rows(lanes):
    """Rows of two queues, sums into x and into y, other beats in between: all in order, `latency` cycles later."""
    contexts = [
        {"op": DataflowOp.FMUL, "a": Source.X, "b": Source.Y, "reduce": Reduce.FSUM, "row": 1},
        {"reduce": Reduce.FSUM, "row": 1, "dst": 1, "repeat": 7},
        {"op": DataflowOp.FADD, "a": Source.X, "b": Source.Y},
        {"reduce": Reduce.FSUM, "repeat": 2},
    ]
    rng = np.random.default_rng(lanes)
    queues = [
        rows_of(rng, 0, 0, [1, 1, 1, 3], lanes) + rows_of(rng, 0, 2, [4], lanes) + rows_of(rng, 0, 1, [9, 9], lanes),
        rows_of(rng, 1, 3, [5], lanes) + rows_of(rng, 1, 1, [2, 2], lanes) + rows_of(rng, 1, 0, [70], lanes),
    ]
    beats = []
    while any(queues):
        queue = rng.choice([q for q in range(2) if queues[q]])
        beats += [queues[queue].pop(0)] + [None] * int(rng.integers(0, 5) == 0)
    out = run(beats, contexts, lanes=lanes, float_sum=True)
    slots = [(cycle, beat) for cycle, beat in enumerate(beats) if beat]
    assert [o["cycle"] for o in out] == [cycle + Column.latency(lanes, True) for cycle, _ in slots]
    taken = [[], []]
    for (_, beat), o in zip(slots, out):
        assert (o["queue"], o["ends"], o["idx"]) == (beat["queue"], beat["ends"], beat["idx"])
        x, y = (np.array(beat[name], np.uint32).view(np.float32) for name in "xy")
        context, row = beat["context"], taken[beat["queue"]]
        if context == 2:
            assert (o["all"], o["lanes"]) == ((bits(x + y), beat["y"]), beat["lanes"])
            continue
        row += (bits(x * y) if context == 0 else beat["x"])[: beat["lanes"]] + [0] * (lanes - beat["lanes"])
        assert o["valid"] == (len(row) == 2 * lanes if context == 3 else beat["ends"])
        if o["valid"]:
            total = [row_sum(row)] * lanes
            assert (o["all"], o["lanes"]) == ((beat["x"], total) if context == 1 else (total, beat["y"]), lanes)
        if o["valid"] or o["last"]:
            row.clear()


def test_no_sums_without_the_unit():
    """FSUM is no reduction in other columns."""
    out = run([{"x": 5, "y": 7, "ends": i % 2} for i in range(4)], [{"reduce": Reduce.FSUM, "row": 1}], lanes=4)
    assert [(o["x"], o["y"], o["valid"], o["lanes"]) for o in out] == [(5, 7, 1, 4)] * 4


def test_clear_drops_sums():
    """Slots and sums under way disappear."""
    beats = [{"x": bits([v] * 4), "ends": 1} for v in (1, 2)] + [None] * 28 + [{"x": bits([3] * 4), "ends": 1}]
    out = run(beats, [{"reduce": Reduce.FSUM, "row": 1}], clear_at=29, lanes=4, float_sum=True)
    assert [(o["cycle"], o["x"]) for o in out] == [(30 + Column.latency(4, True), bits([12])[0])]
