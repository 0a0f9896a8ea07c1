"""Models of what surrounds the MAC engine: scratchpad banks, weight ring, drain."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from headrace.interfaces import ACC_LATENCY, RING_LATENCY, SPAD_LATENCY
from headrace.mac.engine import MacEngine

from .reference import Entry, Machine, Memory


def integer(codes: np.ndarray) -> int:
    return int.from_bytes(codes.tobytes(), "little")


@dataclass
class Surroundings:
    """Runs commands on an engine; `entries` are (entry, tag) in ring order."""

    machine: Machine
    memory: Memory
    commands: list[dict]
    entries: list[tuple[Entry, int]]
    tile_count: int
    seed: int = 0
    ring_pace: float = 1.0  # probability a cycle that a weight entry arrives
    drain_pace: float = 1.0  # probability a cycle that the drain goes on
    limit: int = 20000
    tiles: list[np.ndarray] = field(default_factory=list)
    active: list[int] = field(default_factory=list)  # mac_active of every cycle
    waits: list[str] = field(default_factory=list)
    done: int = 0
    error: tuple[int, int, int] | None = None

    def run(self) -> Surroundings:
        m = self.machine
        self.rng = np.random.default_rng(self.seed)
        self.dut = MacEngine(
            rows=m.rows, cols=m.cols, lanes=m.lanes, accs=m.accs, bank_words=m.bank_words,
            ring_entries=m.ring_entries, groups=m.groups, kc_words=m.kc_words, multiplier=m.multiplier,
            taps=m.taps, halves=m.halves,
        )  # fmt: skip
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(self._issue, background=True)
        sim.add_testbench(self._banks, background=True)
        sim.add_testbench(self._ring, background=True)
        sim.add_testbench(self._drain, background=True)
        sim.add_testbench(self._watch)
        sim.run()
        return self

    async def _load_shifts(self, ctx):
        """The table of group offset shifts, as the LOAD engine writes it."""
        port = self.dut.kc
        an_element = -(-self.machine.cols // 8)
        for word, shifts in enumerate(self.memory.kc):
            for i in range(an_element):
                part = shifts[8 * i : 8 * i + 8]
                ctx.set(port.data, sum(int(kc) << 4 * c for c, kc in enumerate(part)))
                ctx.set(port.element, word * an_element + i)
                ctx.set(port.en, 1)
                await ctx.tick()
        ctx.set(port.en, 0)

    async def _issue(self, ctx):
        await self._load_shifts(ctx)
        issue = self.dut.port.issue
        for i, command in enumerate(self.commands):
            ctx.set(issue.payload, {"index": i, "cmd": command})
            ctx.set(issue.valid, 1)
            await ctx.tick().until(issue.ready)
            ctx.set(issue.valid, 0)

    async def _banks(self, ctx):
        flight: list[list[tuple[int, int]]] = []
        signals = [s for port in self.dut.banks for s in (port.en, port.addr)]
        async for _, _reset, *values in ctx.tick().sample(*signals):
            words = [
                (integer(self.memory.words[b, addr]), int(self.memory.ka[b, addr]))
                if en
                else (int(self.rng.integers(256)), int(self.rng.integers(8)))
                for b, (en, addr) in enumerate(zip(values[::2], values[1::2]))
            ]
            flight.append(words)
            if len(flight) >= SPAD_LATENCY:
                for port, (value, ka) in zip(self.dut.banks, flight.pop(0)):
                    ctx.set(port.data, value)
                    ctx.set(port.ka, ka)

    async def _ring(self, ctx):
        ring, waiting = [], list(self.entries)
        port = self.dut.ring
        flight = []
        async for _, _reset, en, offset, release in ctx.tick().sample(port.en, port.offset, port.release):
            flight.append(ring[offset] if en else None)
            assert release <= len(ring)
            del ring[:release]
            if waiting and len(ring) < self.machine.ring_entries and self.rng.random() < self.ring_pace:
                ring.append(waiting.pop(0))
            ctx.set(port.level, len(ring))
            arrived = flight.pop(0) if len(flight) >= RING_LATENCY else None
            for c in range(self.machine.cols):
                ctx.set(port.codes[c], integer(arrived[0].codes[c]) if arrived else 0)
                ctx.set(port.scales[c], integer(arrived[0].scales[c]) if arrived else 0)
            ctx.set(port.tag, arrived[1] if arrived else 0)

    async def _drain(self, ctx):
        port = self.dut.drain
        while True:
            await ctx.tick()
            if not ctx.get(port.tile.valid) or self.rng.random() >= self.drain_pace:
                continue
            buffer, used = ctx.get(port.tile.payload.buffer), ctx.get(port.tile.payload.t_used)
            reads = [(t, r) for t in range(used) for r in range(self.machine.rows)]
            out = []
            for i in range(len(reads) + ACC_LATENCY):
                if i >= ACC_LATENCY:
                    out.append([ctx.get(port.data[c]) for c in range(self.machine.cols)])
                ctx.set(port.en, i < len(reads))
                if i < len(reads):
                    ctx.set(port.buffer, buffer)
                    ctx.set(port.t, reads[i][0])
                    ctx.set(port.row, reads[i][1])
                if i < len(reads) + ACC_LATENCY - 1:
                    await ctx.tick()
            ctx.set(port.tile.ready, 1)
            await ctx.tick()
            ctx.set(port.tile.ready, 0)
            tile = np.array(out, np.uint32).view(np.int32)
            self.tiles.append(tile.reshape(used, self.machine.rows, self.machine.cols))

    async def _watch(self, ctx):
        dut = self.dut
        for _ in range(self.limit):
            await ctx.tick()
            self.active.append(ctx.get(dut.mac_active))
            self.done += ctx.get(dut.port.done)
            self.waits += [w for w in ("wait_weight", "wait_act", "wait_acc") if ctx.get(getattr(dut, w))]
            if ctx.get(dut.port.error.valid):
                error = ctx.get(dut.port.error)
                self.error = (error.cause, error.index, error.address)
                return
            if self.done == len(self.commands) and len(self.tiles) == self.tile_count:
                assert not ctx.get(dut.port.busy)
                return
        raise AssertionError(f"{self.done} of {len(self.commands)} commands, {len(self.tiles)} tiles")
