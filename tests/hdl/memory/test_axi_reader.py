"""AXI reader: data in order for every client, arbitration, windows, error responses, halt."""

import random
from typing import Any

import pytest

from headrace.isa import Cause
from headrace.memory.axi_reader import CLIENTS, AxiReader

from .bus import Ddr, simulate

SIZE = 1 << 14


def make(beat: int, outstanding: int, stall: float, latency: int, seed: int) -> tuple[AxiReader, Ddr, random.Random]:
    print("seed", seed)
    rng = random.Random(seed)
    dut = AxiReader(axi_bytes=beat, outstanding=outstanding, windows=2)
    return dut, Ddr(size=SIZE, beat=beat, burst_beats=8, rng=rng, latency=latency, stall=stall), rng


async def open_windows(ctx: Any, dut: AxiReader) -> None:
    """Pages 0 and 1 readable; page 2 writable only; page 3 closed."""
    ctx.set(dut.windows[0], {"base": 0, "limit": 2, "read": 1, "write": 0})
    ctx.set(dut.windows[1], {"base": 2, "limit": 3, "read": 0, "write": 1})


def client(dut: AxiReader, name: str, requests: list[tuple[int, int]], got: list[Any]) -> Any:
    async def process(ctx: Any) -> None:
        port = getattr(dut, name)
        waiting = list(requests)
        while True:
            ctx.set(port.req.valid, bool(waiting))
            if waiting:
                ctx.set(port.req.payload, {"address": waiting[0][0], "beats": waiting[0][1], "index": 7})
            _, _, ready, valid, data, last, bad = await ctx.tick().sample(
                port.req.ready, port.beat_valid, port.beat_data, port.beat_last, port.bad
            )
            if ready and waiting:
                waiting.pop(0)
            if valid:
                got.append((data, last, bad))

    return process


@pytest.mark.parametrize("beat,outstanding,stall,latency", [(4, 4, 0.3, 5), (8, 3, 0.0, 20), (16, 16, 0.5, 2)])
def test_clients_share_the_port(beat: int, outstanding: int, stall: float, latency: int) -> None:
    dut, ddr, rng = make(beat, outstanding, stall, latency, beat + outstanding)
    requests: dict[str, list[tuple[int, int]]] = {}
    got: dict[str, list[Any]] = {name: [] for name in CLIENTS}
    for name in CLIENTS:
        addresses = [rng.randrange(8192 // beat // 8) * beat * 8 for _ in range(12)]
        requests[name] = [(a, rng.randrange(1, 9)) for a in addresses]
    total = sum(beats for r in requests.values() for _, beats in r)

    async def bench(ctx: Any) -> None:
        await open_windows(ctx, dut)
        counted = 0
        while sum(map(len, got.values())) < total:
            counted += ctx.get(dut.beat)
            for name in CLIENTS:
                assert not ctx.get(getattr(dut, f"{name}_error").valid)
            await ctx.tick()
        assert counted == total and ctx.get(dut.idle)

    simulate(dut, bench, ddr.read_port(dut.axi), *(client(dut, name, requests[name], got[name]) for name in CLIENTS))
    assert ddr.most_in_flight <= outstanding
    if not stall:
        assert ddr.most_in_flight == outstanding
    for name in CLIENTS:
        expected = [
            (int.from_bytes(ddr.memory[a + i * beat : a + (i + 1) * beat], "little"), i == beats - 1, 0)
            for a, beats in requests[name]
            for i in range(beats)
        ]
        assert got[name] == expected, name


def test_priority() -> None:
    """All clients ask at once: fetch goes first, then weight and load by turns."""
    dut, ddr, _ = make(4, 16, 0.0, 3, 1)
    got: dict[str, list[Any]] = {name: [] for name in CLIENTS}
    base = {"fetch": 0, "weight": 1024, "load": 2048}

    async def bench(ctx: Any) -> None:
        await open_windows(ctx, dut)
        await ctx.tick().repeat(40)

    clients = [client(dut, n, [(base[n] + 32 * i, 1) for i in range(3)], got[n]) for n in CLIENTS]
    simulate(dut, bench, ddr.read_port(dut.axi), *clients)
    order = ["load" if a >= 2048 else "weight" if a >= 1024 else "fetch" for a, _ in ddr.reads]
    assert order == ["fetch"] * 3 + ["weight", "load"] * 3


@pytest.mark.parametrize("address,cause", [(8192, Cause.WINDOW), (12288 - 32, Cause.WINDOW), (4096 + 64, Cause.BUS)])
def test_errors(address: int, cause: Cause) -> None:
    dut, ddr, _ = make(8, 4, 0.0, 4, 2)
    ddr.broken.add(4096 + 64 + 8)
    got: list[Any] = []
    raised: list[Any] = []

    async def bench(ctx: Any) -> None:
        await open_windows(ctx, dut)
        for _ in range(40):
            for name in CLIENTS:
                error = getattr(dut, f"{name}_error")
                if ctx.get(error.valid):
                    raised.append((name, ctx.get(error.cause), ctx.get(error.index), ctx.get(error.address)))
            await ctx.tick()

    simulate(dut, bench, ddr.read_port(dut.axi), client(dut, "load", [(0, 2), (address, 4), (64, 1)], got))
    assert raised == [("load", cause.value, 7, address)]
    assert [bad for _, last, bad in got if last] == ([0, 1, 0] if cause == Cause.BUS else [0, 0])


def test_halt() -> None:
    """Bursts in flight end on the bus, their data is dropped, nothing new starts, then the port is idle."""
    dut, ddr, _ = make(8, 8, 0.0, 30, 3)
    got: list[Any] = []

    async def bench(ctx: Any) -> None:
        await open_windows(ctx, dut)
        await ctx.tick().repeat(8)
        ctx.set(dut.halt, 1)
        await ctx.tick().repeat(3)
        started = len(ddr.reads)
        assert not ctx.get(dut.idle)
        await ctx.tick().repeat(80)
        assert ctx.get(dut.idle) and len(ddr.reads) == started and ddr.in_flight == 0
        ctx.set(dut.halt, 0)
        await ctx.tick().repeat(60)
        assert len(ddr.reads) > started

    simulate(dut, bench, ddr.read_port(dut.axi), client(dut, "load", [(64 * i, 8) for i in range(20)], got))
