"""One column: exact latency, tags, reductions of two queues, bad addresses, clear."""

from amaranth.sim import Simulator

from headrace.dataflow.column import Column
from headrace.isa import DataflowOp, Reduce, Source, encode_context

ADD = {"op": DataflowOp.IADD, "a": Source.X, "b": Source.MEM, "mem_base": 1, "mem_index": 1}
SUM = {"reduce": Reduce.SUM, "repeat": 3, "dst": 1}
PASS: dict[str, int] = {}


def run(beats, contexts, *, clear_at=None):
    """Beats (dict of tag fields with x and y) back to back; what leaves, one dict for each occupied slot."""
    dut = Column(lanes=1, contexts=4, words=5, load_elements=1)
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
        for cycle in range(len(beats) + Column.latency(1) + 2):
            beat = beats[cycle] if cycle < len(beats) else None
            tag = dut.i.tag
            ctx.set(tag.present, beat is not None)
            ctx.set(tag.valid, beat is not None)
            ctx.set(dut.clear, cycle == clear_at)
            for name in ("last", "queue", "context", "idx"):
                ctx.set(getattr(tag, name), (beat or {}).get(name, 0))
            ctx.set(dut.i.x[0], (beat or {}).get("x", 0))
            ctx.set(dut.i.y[0], (beat or {}).get("y", 0))
            o = dut.o.tag
            if ctx.get(o.present):
                values = {name: ctx.get(getattr(o, name)) for name in ("valid", "last", "queue", "idx", "bad")}
                out.append({"cycle": cycle, "x": ctx.get(dut.o.x[0]), "y": ctx.get(dut.o.y[0]), **values})
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
    assert [o["cycle"] for o in out] == [i + Column.latency(1) for i in range(7)]
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
