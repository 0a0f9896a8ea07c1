"""Models of what the memory blocks talk to: DDR behind AXI4, the AXI reader and the AXI writer as engines see them."""

import random
from collections import deque
from typing import Any

from amaranth.sim import Simulator

Bench = Any


def simulate(dut: Any, bench: Any, *background: Any) -> None:
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for process in background:
        sim.add_testbench(process, background=True)
    sim.add_testbench(bench)
    sim.run()


class Ddr:
    """Bytes behind an AXI4 port; checks that every burst is legal. `stall` is the chance of a stall on each channel."""

    def __init__(
        self, *, size: int, beat: int, burst_beats: int, rng: random.Random, latency: int, stall: float
    ) -> None:
        self.memory = bytearray(rng.randbytes(size))
        self.beat, self.burst_beats, self.rng, self.latency, self.stall = beat, burst_beats, rng, latency, stall
        self.broken: set[int] = set()  # bursts that touch these addresses get an error response
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.in_flight = self.most_in_flight = 0

    def check(self, address: int, beats: int) -> None:
        assert address % self.beat == 0 and 1 <= beats <= self.burst_beats
        assert address // 4096 == (address + beats * self.beat - 1) // 4096

    def response(self, address: int, beats: int) -> int:
        return 2 if any(address <= b < address + beats * self.beat for b in self.broken) else 0

    def read_port(self, axi: Any) -> Bench:
        async def process(ctx: Any) -> None:
            queue: deque[tuple[int, int, int, int]] = deque()  # cycle, address, response, last
            cycle = 0
            while True:
                ctx.set(axi.arready, self.rng.random() >= self.stall)
                valid = bool(queue) and queue[0][0] <= cycle and self.rng.random() >= self.stall
                ctx.set(axi.rvalid, valid)
                if valid:
                    _, address, response, last = queue.popleft()
                    ctx.set(axi.rdata, int.from_bytes(self.memory[address : address + self.beat], "little"))
                    ctx.set(axi.rresp, response)
                    ctx.set(axi.rlast, last)
                    self.in_flight -= last
                _, _, arvalid, arready, address, length, size, rready = await ctx.tick().sample(
                    axi.arvalid, axi.arready, axi.araddr, axi.arlen, axi.arsize, axi.rready
                )
                cycle += 1
                assert rready and 1 << size == self.beat
                if arvalid and arready:
                    beats = length + 1
                    self.check(address, beats)
                    self.reads.append((address, beats))
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
                    for i in range(beats):
                        # only the burst's first beat carries the error, to see that it is remembered
                        response = self.response(address, beats) if i == 0 else 0
                        queue.append((cycle + self.latency, address + i * self.beat, response, int(i == beats - 1)))

        return process

    def write_port(self, axi: Any) -> Bench:
        async def process(ctx: Any) -> None:
            addresses: deque[tuple[int, int]] = deque()
            data: deque[tuple[int, int, int]] = deque()
            responses: deque[tuple[int, int]] = deque()
            cycle = 0
            while True:
                ctx.set(axi.awready, self.rng.random() >= self.stall)
                ctx.set(axi.wready, self.rng.random() >= self.stall)
                valid = bool(responses) and responses[0][0] <= cycle and self.rng.random() >= self.stall
                ctx.set(axi.bvalid, valid)
                if valid:
                    ctx.set(axi.bresp, responses.popleft()[1])
                sampled = await ctx.tick().sample(
                    *(axi.awvalid, axi.awready, axi.awaddr, axi.awlen, axi.awsize),
                    *(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast, axi.bready),
                )
                awvalid, awready, address, length, size, wvalid, wready, word, strobe, last, bready = sampled[2:]
                cycle += 1
                assert bready and 1 << size == self.beat
                if awvalid and awready:
                    self.check(address, length + 1)
                    self.writes.append((address, length + 1))
                    addresses.append((address, length + 1))
                if wvalid and wready:
                    data.append((word, strobe, last))
                while addresses and len(data) >= addresses[0][1]:
                    address, beats = addresses.popleft()
                    for i in range(beats):
                        word, strobe, last = data.popleft()
                        assert last == (i == beats - 1)
                        for j in range(self.beat):
                            if strobe >> j & 1:
                                self.memory[address + i * self.beat + j] = word >> 8 * j & 0xFF
                    responses.append((cycle + self.latency, self.response(address, beats)))

        return process


class Reader:
    """Stands in for the AXI reader: serves one BurstRead client; answers `latency` cycles after a request."""

    def __init__(self, *, memory: bytes, beat: int, burst_beats: int, outstanding: int, rng: random.Random) -> None:
        self.memory, self.beat, self.burst_beats, self.outstanding, self.rng = (
            memory,
            beat,
            burst_beats,
            outstanding,
            rng,
        )
        self.latency, self.stall = 5, 0.0
        self.bursts: list[tuple[int, int, int]] = []

    def serve(self, port: Any) -> Bench:
        async def process(ctx: Any) -> None:
            queue: deque[tuple[int, int, int]] = deque()
            cycle = in_flight = 0
            while True:
                ctx.set(port.req.ready, in_flight < self.outstanding and self.rng.random() >= self.stall)
                valid = bool(queue) and queue[0][0] <= cycle and self.rng.random() >= self.stall
                ctx.set(port.beat_valid, valid)
                ctx.set(port.beat_data, self.rng.getrandbits(8 * self.beat))
                if valid:
                    _, address, last = queue.popleft()
                    ctx.set(port.beat_data, int.from_bytes(self.memory[address : address + self.beat], "little"))
                    ctx.set(port.beat_last, last)
                    in_flight -= last
                _, _, taken, ready, request = await ctx.tick().sample(port.req.valid, port.req.ready, port.req.payload)
                cycle += 1
                if taken and ready:
                    address, beats = request.address, request.beats
                    assert address % self.beat == 0 and 1 <= beats <= self.burst_beats
                    assert address // 4096 == (address + beats * self.beat - 1) // 4096
                    self.bursts.append((address, beats, request.index))
                    in_flight += 1
                    queue.extend((cycle + self.latency, address + i * self.beat, i == beats - 1) for i in range(beats))

        return process


class Engine:
    """Drives an EnginePort: issues commands one after the other as control does, and records what comes back."""

    def __init__(self, commands: list[dict[str, int]], *, limit: int = 20000) -> None:
        self.commands, self.limit = commands, limit
        self.error: Any = None
        self.cycles = 0  # from the first issue to the last done
        self.done_at: list[int] = []

    def bench(self, port: Any) -> Bench:
        async def process(ctx: Any) -> None:
            waiting = list(enumerate(self.commands))
            accepted = 0
            while len(self.done_at) < len(self.commands) and self.error is None:
                ctx.set(port.issue.valid, bool(waiting))
                if waiting:
                    ctx.set(port.issue.payload, {"index": waiting[0][0] + 100, "cmd": waiting[0][1]})
                _, _, ready, done, error, busy = await ctx.tick().sample(
                    port.issue.ready, port.done, port.error, port.busy
                )
                self.cycles += 1
                assert self.cycles < self.limit, "the engine hangs"
                assert busy == (accepted > len(self.done_at)) or error.valid
                if done:
                    self.done_at.append(self.cycles)
                if ready and waiting:
                    waiting.pop(0)
                    accepted += 1
                if error.valid:
                    self.error = (error.cause, error.index, error.address)
            ctx.set(port.issue.valid, 0)
            await ctx.tick().repeat(5)
            assert ctx.get(port.busy) == 0 or self.error

        return process
