"""Scratchpad against a Python model: random clients, priorities, latency, byte masks, activation shifts."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.memory.scratchpad import Scratchpad

CYCLES = 300


class Model:
    """Reference: a dict of words, and the sub-bank rule."""

    def __init__(self, words: int) -> None:
        self.words = words
        self.memory: dict[tuple[int, int], bytearray] = {}
        self.shifts: dict[tuple[int, int], int] = {}

    def sub(self, bank: int, addr: int) -> tuple[int, int]:
        return bank, addr * 2 // self.words

    def read(self, bank: int, addr: int, size: int) -> int:
        return int.from_bytes(self.memory.get((bank, addr), bytearray(size)), "little")

    def shift(self, bank: int, addr: int) -> int:
        return self.shifts.get((bank, addr), 0)

    def write(self, bank: int, addr: int, value: int, mask: int, size: int, ka: int) -> None:
        self.shifts[bank, addr] = ka
        word = self.memory.setdefault((bank, addr), bytearray(size))
        for i in range(size):
            if mask >> i & 1:
                word[i] = value >> 8 * i & 0xFF


@pytest.mark.parametrize("banks,words,size", [(1, 4, 4), (3, 8, 8), (4, 16, 16)])
def test_random_clients(banks: int, words: int, size: int) -> None:
    seed = 100 * banks + words
    print("seed", seed)
    rng = random.Random(seed)
    dut = Scratchpad(banks=banks, words=words, word_bytes=size)
    model = Model(words)
    readers = {"x": dut.x, "y": dut.y, "store": dut.store}
    writers = {"dataflow": dut.dataflow, "load": dut.load}

    async def bench(ctx):  # type: ignore[no-untyped-def]
        expect: dict[int, list[tuple[object, int]]] = {}  # signals and their values
        held: dict[str, bool] = {}
        for cycle in range(CYCLES):
            taken = set()
            for bank, port in enumerate(dut.mac):
                en, addr = rng.random() < 0.3, rng.randrange(words)
                ctx.set(port.en, en)
                ctx.set(port.addr, addr)
                if en:
                    taken.add(model.sub(bank, addr))
                    expect.setdefault(cycle + dut.LATENCY, []).append((port.data, model.read(bank, addr, size)))
                    expect[cycle + dut.LATENCY].append((port.ka, model.shift(bank, addr)))
            for name, client in {**readers, **writers}.items():
                if not held.get(name):
                    ctx.set(client.req.valid, rng.random() < 0.7)
                    ctx.set(client.req.p.bank, rng.randrange(banks))
                    ctx.set(client.req.p.addr, rng.randrange(words))
            for name, client in writers.items():
                if not held.get(name):
                    ctx.set(client.req.p.data, int.from_bytes(rng.randbytes(size), "little"))
                    ctx.set(client.req.p.mask, rng.choice([0, rng.randrange(1 << size)]))
                    ctx.set(client.req.p.ka, rng.randrange(8))

            def look(client):  # type: ignore[no-untyped-def]
                return ctx.get(client.req.p.bank), ctx.get(client.req.p.addr)

            for name, client in readers.items():
                bank, addr = look(client)
                free = model.sub(bank, addr) not in taken
                if ctx.get(client.req.valid):
                    assert ctx.get(client.req.ready) == free, name
                    held[name] = not free
                    if free:
                        expect.setdefault(cycle + dut.LATENCY, []).append((client.data, model.read(bank, addr, size)))
                        taken.add(model.sub(bank, addr))
            written = set()
            waits = 0
            for name, client in writers.items():
                bank, addr = look(client)
                free = model.sub(bank, addr) not in written
                if ctx.get(client.req.valid):
                    assert ctx.get(client.req.ready) == free, name
                    held[name] = not free
                    waits += not free
                    if free:
                        write = ctx.get(client.req.payload)
                        model.write(bank, addr, write.data, write.mask, size, write.ka)
                        written.add(model.sub(bank, addr))
            assert ctx.get(dut.load_wait) == waits
            for signal, value in expect.pop(cycle, []):
                assert ctx.get(signal) == value
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
