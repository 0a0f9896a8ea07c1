"""AXI writer: store and forward, windows, error responses, halt."""

import random
from typing import Any

import pytest

from headrace.isa import Cause
from headrace.memory.axi_writer import AxiWriter

from .bus import Ddr, simulate

BEAT, BURST = 8, 4


def make(stall: float, latency: int, seed: int) -> tuple[AxiWriter, Ddr, random.Random]:
    print("seed", seed)
    rng = random.Random(seed)
    dut = AxiWriter(axi_bytes=BEAT, burst_beats=BURST, outstanding=3, windows=1)
    return dut, Ddr(size=1 << 14, beat=BEAT, burst_beats=BURST, rng=rng, latency=latency, stall=stall), rng


async def transferred(ctx: Any, port: Any) -> None:
    """Wait for the transfer (`until` of the simulator may not be left unfinished at the end of a test)."""
    ready = False
    while not ready:
        _, _, ready = await ctx.tick().sample(port.ready)
    ctx.set(port.valid, 0)


class Client:
    """Sends the data of `requests` (address, beats), and each request after its last beat. Window: pages 0 and 1."""

    def __init__(self, dut: AxiWriter, requests: list[tuple[int, int]], rng: random.Random) -> None:
        self.dut, self.requests, self.rng = dut, requests, rng
        self.beats = [(rng.getrandbits(8 * BEAT), rng.getrandbits(BEAT)) for _, n in requests for _ in range(n)]
        self.errors: list[tuple[int, int, int]] = []
        self.done = 0
        self.beat_events = 0

    async def data(self, ctx: Any) -> None:
        port = self.dut.store.data
        for value, strobe in self.beats:
            while self.rng.random() < 0.3:
                await ctx.tick()
            ctx.set(port.payload, {"data": value, "strb": strobe})
            ctx.set(port.valid, 1)
            await transferred(ctx, port)

    async def request(self, ctx: Any) -> None:
        ctx.set(self.dut.windows[0], {"base": 0, "limit": 2, "read": 0, "write": 1})
        port = self.dut.store.req
        for i, (address, beats) in enumerate(self.requests):
            ctx.set(port.payload, {"address": address, "beats": beats, "index": i})
            ctx.set(port.valid, 1)
            await transferred(ctx, port)

    async def watch(self, ctx: Any) -> None:
        dut = self.dut
        while True:
            _, _, done, error, beat = await ctx.tick().sample(dut.store.done, dut.store_error, dut.beat)
            self.done += done
            self.beat_events += beat
            if error.valid:
                self.errors.append((error.cause, error.index, error.address))

    def processes(self) -> list[Any]:
        return [self.data, self.request, self.watch]


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_bursts(stall: float) -> None:
    dut, ddr, rng = make(stall, 7, 1)
    requests = [(rng.randrange(64) * BEAT * BURST, rng.randrange(1, BURST + 1)) for _ in range(25)]
    client = Client(dut, requests, rng)
    expected = bytearray(ddr.memory)
    beats = iter(client.beats)
    for address, count in requests:
        for i in range(count):
            value, strobe = next(beats)
            for j in range(BEAT):
                if strobe >> j & 1:
                    expected[address + i * BEAT + j] = value >> 8 * j & 0xFF

    async def bench(ctx: Any) -> None:
        while client.done < len(requests):
            await ctx.tick()
        await ctx.tick().repeat(3)
        assert ctx.get(dut.idle)

    simulate(dut, bench, ddr.write_port(dut.axi), *client.processes())
    assert ddr.memory == expected and not client.errors
    assert ddr.writes == requests and client.beat_events == len(client.beats)


@pytest.mark.parametrize("address,cause", [(8192, Cause.WINDOW), (4096, Cause.BUS)])
def test_errors(address: int, cause: Cause) -> None:
    dut, ddr, rng = make(0.0, 4, 2)
    ddr.broken.add(4096 + 8)
    client = Client(dut, [(0, 2), (address, 3)], rng)

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(60)
        assert ctx.get(dut.idle)

    simulate(dut, bench, ddr.write_port(dut.axi), *client.processes())
    assert client.errors == [(cause.value, 1, address)]
    assert len(ddr.writes) == (1 if cause == Cause.WINDOW else 2)


def test_store_and_forward() -> None:
    """Nothing appears on the bus before the burst's last beat is held."""
    dut, ddr, _ = make(0.0, 4, 3)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.windows[0], {"base": 0, "limit": 2, "read": 0, "write": 1})
        ctx.set(dut.store.req.payload, {"address": 64, "beats": 4, "index": 0})
        ctx.set(dut.store.req.valid, 1)
        await ctx.tick().until(dut.store.req.ready)
        ctx.set(dut.store.req.valid, 0)
        ctx.set(dut.store.data.valid, 1)
        await ctx.tick().repeat(3)
        ctx.set(dut.store.data.valid, 0)
        for _ in range(10):
            assert not ctx.get(dut.axi.awvalid) and not ctx.get(dut.axi.wvalid)
            await ctx.tick()
        ctx.set(dut.store.data.valid, 1)
        await ctx.tick()
        ctx.set(dut.store.data.valid, 0)
        await ctx.tick().repeat(25)
        assert ctx.get(dut.idle) and ddr.writes == [(64, 4)]

    simulate(dut, bench, ddr.write_port(dut.axi))


def test_halt() -> None:
    """Bursts on the bus are completed, no other starts, then the port is idle."""
    dut, ddr, rng = make(0.3, 20, 4)
    client = Client(dut, [(i * 32, 4) for i in range(20)], rng)

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(60)
        ctx.set(dut.halt, 1)
        await ctx.tick().repeat(10)
        started = len(ddr.writes)
        assert started > 0
        await ctx.tick().repeat(150)
        assert ctx.get(dut.idle) and len(ddr.writes) == started == client.done

    simulate(dut, bench, ddr.write_port(dut.axi), *client.processes())
