"""The control block with a host, a command ring in memory and engines made of Python."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from amaranth.sim import Simulator

from headrace.config import NpuConfig, machine
from headrace.control.control import ENGINES, Control
from headrace.isa import BY_NAME, Cause, Engine
from headrace.isa.assembler import Program
from headrace.registers import REGISTERS, State

RING = 0x8000


@dataclass
class FakeEngine:
    """Takes a command, works for a random time, is done. Keeps what it was given."""

    engine: Engine
    seen: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    stuck: bool = False
    fail: dict[int, Cause] = field(default_factory=dict)  # by command index
    slowest: int = 12


@dataclass
class FakeReader:
    """Answers fetch bursts from an image after a latency; can refuse an address or answer one with an error."""

    image: bytearray
    refuse: int | None = None
    bad: int | None = None
    latency: int = 9


class Bench:
    """Runs a host coroutine against the control block. `log` holds (event, engine, index) in order of time."""

    def __init__(self, *, name: str = "tiny", seed: int = 1) -> None:
        print(f"seed {seed}")
        self.random = random.Random(seed)
        self.config: NpuConfig = machine(name)
        self.dut = Control(config=self.config)
        self.engines = {e: FakeEngine(e) for e in ENGINES}
        self.reader = FakeReader(bytearray(1 << 16))
        self.log: list[tuple[str, Engine, int]] = []

    def load(self, program: Program, *, at: int = RING, slot: int = 0) -> None:
        """Put a program into the ring memory from command slot `slot` on."""
        image = program.image()
        self.reader.image[at + 128 * slot : at + 128 * slot + len(image)] = image

    def run(self, host: Any) -> None:
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)

        async def bench(ctx: Any) -> None:
            self.ctx = ctx
            await host(self)

        simulator.add_testbench(bench)
        simulator.add_process(self._fetch)
        for engine in self.engines.values():
            simulator.add_process(self._process(engine))
        simulator.add_process(self._trace)
        simulator.run()

    async def _fetch(self, ctx: Any) -> None:
        dut, bus = self.dut, self.dut.fetch
        jobs: deque[tuple[int, int, int, int]] = deque()  # address, beats, cycle from which data may come, index
        cycle, beat = 0, 0
        width = self.config.axi_bytes
        ctx.set(dut.reader_idle, 1)
        ctx.set(dut.writer_idle, 1)
        async for _, _, valid, payload, halt, ready in ctx.tick().sample(
            bus.req.valid, bus.req.payload, dut.halt, bus.req.ready
        ):
            cycle += 1
            ctx.set(dut.fetch_error.valid, 0)
            if valid and ready and not halt:
                assert payload.address % 4096 + payload.beats * width <= 4096
                if payload.address == self.reader.refuse:
                    self._error(ctx, Cause.WINDOW, payload.index, payload.address)
                else:
                    jobs.append((payload.address, payload.beats, cycle + self.reader.latency, payload.index))
            ctx.set(bus.req.ready, not halt and self.random.random() < 0.7)
            ctx.set(bus.beat_valid, 0)
            ctx.set(bus.bad, 0)
            if jobs and jobs[0][2] <= cycle and self.random.random() < 0.8:
                address, beats, _, index = jobs[0]
                at = address + beat * width
                last = beat == beats - 1
                ctx.set(bus.beat_valid, 1)
                ctx.set(bus.beat_data, int.from_bytes(self.reader.image[at : at + width], "little"))
                ctx.set(bus.beat_last, last)
                beat += 1
                if last:
                    jobs.popleft()
                    beat = 0
                    if address == self.reader.bad:
                        ctx.set(bus.bad, 1)
                        self._error(ctx, Cause.BUS, index, address)
            ctx.set(dut.reader_idle, not jobs)

    def _error(self, ctx: Any, cause: Cause, index: int, address: int) -> None:
        error = self.dut.fetch_error
        ctx.set(error, {"valid": 1, "cause": cause, "index": index, "address": address})

    def _process(self, engine: FakeEngine) -> Any:
        async def process(ctx: Any) -> None:
            await self._engine(ctx, engine)

        return process

    async def _engine(self, ctx: Any, engine: FakeEngine) -> None:
        port = getattr(self.dut, engine.engine.name.lower())
        command = next(c for c in BY_NAME.values() if c.engine is engine.engine)
        left, index = 0, 0
        async for _, _, valid, ready, payload, flush in ctx.tick().sample(
            port.issue.valid, port.issue.ready, port.issue.payload, self.dut.flush
        ):
            done = False
            if flush:
                left = 0
                ctx.set(port.error.valid, 0)
            elif valid and ready:
                index = payload.index
                engine.seen.append((index, {f.name: int(getattr(payload.cmd, f.name)) for f in command.fields}))
                left = self.random.randint(1, engine.slowest)
                if index in engine.fail:
                    ctx.set(port.error, {"valid": 1, "cause": engine.fail[index], "index": index, "address": 77})
            elif left and not engine.stuck and index not in engine.fail:
                left -= 1
                done = left == 0
            ctx.set(port.done, done)
            ctx.set(port.busy, left != 0)
            ctx.set(port.issue.ready, left == 0 and self.random.random() < 0.6)

    async def _trace(self, ctx: Any) -> None:
        dut = self.dut
        async for _, _, begin, end, begins, ends in ctx.tick().sample(
            dut.trace_begin, dut.trace_end, dut.trace_begin_index, dut.trace_end_index
        ):
            for e in ENGINES:
                if end >> e & 1:
                    self.log.append(("end", e, ends >> 16 * e & 0xFFFF))
                if begin >> e & 1:
                    self.log.append(("begin", e, begins >> 16 * e & 0xFFFF))

    async def write_at(self, address: int, value: int, *, strobe: int = 15) -> int:
        """AXI4-Lite write; the response."""
        ctx, bus = self.ctx, self.dut.axil
        ctx.set(bus.awaddr, address)
        ctx.set(bus.wdata, value)
        ctx.set(bus.wstrb, strobe)
        for valid, ready in self.random.sample([(bus.awvalid, bus.awready), (bus.wvalid, bus.wready)], 2):
            ctx.set(valid, 1)
            await ctx.tick().until(ready)
            ctx.set(valid, 0)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read_at(self, address: int) -> tuple[int, int]:
        """AXI4-Lite read; data and response."""
        ctx, bus = self.ctx, self.dut.axil
        ctx.set(bus.araddr, address)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        await ctx.tick().repeat(self.random.randint(1, 3))
        ctx.set(bus.rready, 1)
        data, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return data, response

    async def write(self, name: str, value: int) -> None:
        assert await self.write_at(REGISTERS[name].offset, value) == 0, name

    async def read(self, name: str) -> int:
        data, response = await self.read_at(REGISTERS[name].offset)
        assert response == 0, name
        return data

    async def control(self, action: str) -> None:
        await self.write("CONTROL", 1 << REGISTERS["CONTROL"][action].lsb)

    async def start(self, tail: int, *, size: int = 8, base: int = RING) -> None:
        await self.write("RING_BASE_LO", base)
        await self.write("RING_SIZE", size)
        await self.write("IRQ_ENABLE", 3)
        await self.write("RING_TAIL", tail)

    async def wait_irq(self, *, limit: int = 3000) -> int:
        """Wait for an interrupt; its status, which is cleared."""
        for _ in range(limit):
            if self.ctx.get(self.dut.irq):
                break
            await self.ctx.tick()
        status = await self.read("IRQ_STATUS")
        assert status, "no interrupt"
        await self.write("IRQ_STATUS", status)
        return status

    async def expect_error(self, cause: Cause, engine: Engine, index: int, address: int = 0) -> None:
        assert await self.wait_irq() == 2
        found = [await self.read(f"ERR_{name}") for name in ("CAUSE", "ENGINE", "INDEX", "ADDRESS_LO", "ADDRESS_HI")]
        assert found == [cause, engine, index, address & 0xFFFFFFFF, address >> 32]
        assert await self.read("STATUS") == State.HALTED

    async def restart(self) -> None:
        """Reset after a failure and run a program that uses what may have been left behind."""
        await self.control("reset")
        for _ in range(200):
            if await self.read("STATUS") == State.IDLE:
                break
        assert [await self.read(n) for n in ("RING_HEAD", "RING_TAIL", "ERR_CAUSE")] == [0, 0, Cause.NONE]
        for engine in self.engines.values():
            engine.fail, engine.stuck = {}, False
            engine.seen.clear()
        self.reader.bad = self.reader.refuse = None
        program = Program()
        program.append("LOAD", signal=[0])
        program.append("MAC", wait=[0])
        program.append("END", value=0x600D)
        self.load(program)
        await self.start(3)
        assert await self.wait_irq() == 1
        assert await self.read("END_VALUE") == 0x600D
        assert [len(self.engines[e].seen) for e in (Engine.LOAD, Engine.MAC)] == [1, 1]
