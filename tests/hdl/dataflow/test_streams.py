"""Stream reader and writer, the shared read port and the distribution of loaded elements."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from headrace.dataflow.load import ColumnLoad
from headrace.dataflow.port_share import ReadShare
from headrace.dataflow.stream_read import StreamRead
from headrace.dataflow.stream_write import StreamWrite
from headrace.interfaces import SPAD_LATENCY
from headrace.isa import DType

from .elements import beat_size, decode, encode

SOURCES = [kind for kind in DType if kind != DType.KA]
SHAPES = [(1, 1, 4), (2, 3, 8), (3, 5, 4), (2, 4, 16)]  # banks, lanes, bytes of a word


def place(view: dict[str, int], banks: int, word_bytes: int, pixel: int, channel: int) -> tuple[int, int, int]:
    s = 1 << view["shift"]
    addr = view["base"] + channel // word_bytes * view["plane"] + pixel // (s * banks) * s + pixel % s
    return pixel // s % banks, addr, channel % word_bytes


def requests(rng: random.Random, lanes: int, types: list[DType]) -> list[tuple[dict[str, int], int, int, int]]:
    """(view, pixel, channel, valid lanes)"""
    out = []
    for _ in range(100):
        view = {"base": rng.randrange(20), "plane": rng.randrange(8, 12), "shift": rng.randrange(3)}
        out.append(
            ({**view, "type": rng.choice(types)}, rng.randrange(12), rng.randrange(40), rng.randrange(lanes + 1))
        )
    return out


def present(ctx, request, item):
    view, pixel, channel, lanes = item
    for name, value in view.items():
        ctx.set(getattr(request.at.view, name), value)
    ctx.set(request.at.pixel, pixel)
    ctx.set(request.at.channel, channel)
    ctx.set(request.lanes, lanes)


@pytest.mark.parametrize(("banks", "lanes", "word_bytes"), SHAPES)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_read(banks, lanes, word_bytes, stall):
    rng = random.Random(3)
    spad = np.random.default_rng(3).integers(0, 256, (banks, 256, word_bytes)).astype(np.uint8)
    items = [item for item in requests(rng, lanes, SOURCES) for _ in range(rng.choice((1, 1, 2, 5)))]
    dut = StreamRead(banks=banks, words=256, word_bytes=word_bytes, lanes=lanes)
    got = []
    reads = 0

    async def source(ctx):
        for item in items:
            present(ctx, dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            while rng.random() < stall:
                await ctx.tick()

    async def memory(ctx):
        nonlocal reads
        pipe = [0] * SPAD_LATENCY
        while True:
            ready = rng.random() >= stall
            ctx.set(dut.port.req.ready, ready)
            p = dut.port.req.payload
            *_, valid, bank, addr = await ctx.tick().sample(dut.port.req.valid, p.bank, p.addr)
            reads += valid and ready
            # What the memory gives without a request means nothing.
            word = int.from_bytes(spad[bank, addr].tobytes(), "little") if valid and ready else rng.getrandbits(8)
            pipe = [*pipe[1:], word]
            ctx.set(dut.port.data, pipe[0])

    async def sink(ctx):
        while len(got) < len(items):
            ready = rng.random() >= stall
            ctx.set(dut.o.ready, ready)
            *_, valid, data = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                got.append([data[lane] for lane in range(lanes)])

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(source, background=True)
    sim.add_testbench(memory, background=True)
    sim.add_testbench(sink)
    sim.run()
    for (view, pixel, channel, valid), beat in zip(items, got):
        size = beat_size(view["type"], valid)
        raw = bytes(spad[place(view, banks, word_bytes, pixel, channel + i)] for i in range(size))
        assert beat == decode(view["type"], raw, valid) + [0] * (lanes - valid)
    expected, before = 0, None
    for view, pixel, channel, valid in items:
        if (view, pixel, channel, valid) != before and valid:
            expected += -(-(channel % word_bytes + beat_size(view["type"], valid)) // word_bytes)
        before = (view, pixel, channel, valid)
    assert reads == expected


@pytest.mark.parametrize(("banks", "lanes", "word_bytes"), SHAPES)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_write(banks, lanes, word_bytes, stall):
    rng = random.Random(4)
    spad = np.zeros((banks, 256, word_bytes), np.uint8)
    ka = np.full((banks, 256), 7)
    expected, expected_ka = spad.copy(), ka.copy()
    items = requests(rng, lanes, list(DType))
    dut = StreamWrite(banks=banks, words=256, word_bytes=word_bytes, lanes=lanes)
    finished = []

    async def source(ctx):
        for number, item in enumerate(items):
            conversion = {"zp": rng.randrange(-128, 128), "lo": rng.randrange(-128, 40), "hi": rng.randrange(-40, 128)}
            for name, value in conversion.items():
                ctx.set(getattr(dut.conversion, name), value)
            ranges = (150, 1 << 15, 1 << 16, 1 << 31)
            values = [rng.randrange(-limit, limit) & 0xFFFFFFFF for limit in rng.choices(ranges, k=lanes)]
            view, pixel, channel, valid = item
            if valid and view["type"] == DType.KA:
                expected_ka[place(view, banks, word_bytes, pixel, channel)[:2]] = values[0] & 7
            elif valid:
                for i, code in enumerate(encode(view["type"], values[:valid], **conversion)):
                    at = place(view, banks, word_bytes, pixel, channel + i)
                    expected[at], expected_ka[at[:2]] = code, 0
            present(ctx, dut.i.payload, item)
            for lane in range(lanes):
                ctx.set(dut.i.payload.user.x[lane], values[lane])
            ctx.set(dut.i.payload.user.queue, number & 1)
            ctx.set(dut.i.payload.user.done, number % 7 == 6)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(30)

    async def memory(ctx):
        while True:
            ready = rng.random() >= stall
            ctx.set(dut.port.req.ready, ready)
            p = dut.port.req.payload
            *_, valid, bank, addr, data, mask, shift, done = await ctx.tick().sample(
                dut.port.req.valid, p.bank, p.addr, p.data, p.mask, p.ka, dut.done
            )
            if valid and ready:
                ka[bank, addr] = shift
            if done:
                finished.append(done)
            for i in range(word_bytes if valid and ready else 0):
                if mask >> i & 1:
                    spad[bank, addr, i] = data >> 8 * i & 0xFF

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(source)
    sim.add_testbench(memory, background=True)
    sim.run()
    assert (spad == expected).all()
    assert (ka == expected_ka).all()
    assert finished == [1 << (number & 1) for number in range(6, len(items), 7)]


def test_shared_port_holds_requests():
    """A request once offered stays until it is taken, and both clients get through."""
    rng = random.Random(5)
    dut = ReadShare(banks=2, words=64, word_bytes=4)
    clients = [dut.clients_0.req, dut.clients_1.req]
    sent, got = [[], []], []

    async def bench(ctx):
        waiting, before = [None, None], None
        for _ in range(400):
            ready = rng.random() < 0.4
            ctx.set(dut.port.req.ready, ready)
            for c, client in enumerate(clients):
                if waiting[c] is None and rng.random() < 0.5:
                    waiting[c] = (c, rng.randrange(64))
                ctx.set(client.valid, waiting[c] is not None)
                if waiting[c] is not None:
                    ctx.set(client.payload.bank, waiting[c][0])
                    ctx.set(client.payload.addr, waiting[c][1])
            port = dut.port.req
            *_, valid, bank, addr, first, second = await ctx.tick().sample(
                port.valid, port.payload.bank, port.payload.addr, clients[0].ready, clients[1].ready
            )
            assert before is None or (valid and (bank, addr) == before)
            before = (bank, addr) if valid and not ready else None
            for c, taken in enumerate((first, second)):
                if taken and waiting[c] is not None:
                    sent[c].append(waiting[c])
                    waiting[c] = None
            if valid and ready:
                got.append((bank, addr))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    for c in range(2):
        assert [g for g in got if g[0] == c] == sent[c]
        assert len(sent[c]) > 50


@pytest.mark.parametrize(
    ("columns", "lanes", "contexts", "words", "at_once"),
    [(1, 1, 1, 1, 1), (3, 5, 4, 6, 1), (2, 6, 2, 5, 2), (2, 8, 8, 16, 4), (3, 16, 4, 9, 8)],
)
def test_column_load(columns, lanes, contexts, words, at_once):
    rng = random.Random(6)
    dut = ColumnLoad(columns=columns, lanes=lanes, contexts=contexts, words=words, elements=at_once)
    size = min(at_once, 4)
    groups = [(0, (c * words + w) * lanes + e, c, w, e)
              for c in range(columns) for w in range(words) for e in range(0, lanes, at_once)]  # fmt: skip
    groups += [(1, (k * columns + c) * 4 + e, c, k, e)
               for k in range(contexts) for c in range(columns) for e in range(0, 4, size)]  # fmt: skip
    rng.shuffle(groups)
    masks = [rng.randrange(1 << (size if context else at_once)) for context, *_ in groups]

    async def bench(ctx):
        for i in range(len(groups) + dut.LATENCY):
            ctx.set(dut.i.mask, masks[i] if i < len(groups) else 0)
            if i < len(groups):
                ctx.set(dut.i.context, groups[i][0])
                ctx.set(dut.i.element, groups[i][1])
                for e in range(at_once):
                    ctx.set(dut.i.data[e], 8 * i + e)
            if i >= dut.LATENCY:
                before = i - dut.LATENCY
                context, _, column, word, first = groups[before]
                assert ctx.get(dut.contexts) == (1 << column if context else 0)
                assert ctx.get(dut.memories) == (0 if context else 1 << column)
                assert (ctx.get(dut.word), ctx.get(dut.mask)) == (word, masks[before] << first)
                assert [ctx.get(dut.data[e]) for e in range(at_once)] == [8 * before + e for e in range(at_once)]
            await ctx.tick()
        assert ctx.get(dut.mask) == 0

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
