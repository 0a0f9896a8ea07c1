"""A dataflow array in pysim with a scratchpad, accumulator tiles and random stalls around it."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from math import gcd

import numpy as np
from amaranth.sim import Simulator

from headrace.config import NpuConfig
from headrace.dataflow.array import DataflowArray
from headrace.interfaces import ACC_LATENCY, SPAD_LATENCY
from headrace.isa import BY_NAME, encode_context


def build(config: NpuConfig) -> DataflowArray:
    return DataflowArray(
        rows=config.rows,
        cols=config.cols,
        accs=config.accs,
        columns=config.columns,
        sum_column=config.sum_column,
        lanes=config.vector_lanes,
        halves=config.halves if config.depthwise_taps else 1,
        contexts=config.contexts,
        column_words=config.column_words,
        load_elements=gcd(config.vector_lanes, config.axi_bytes // 4, 8),
        gasket_beats=config.gasket_beats,
        words=config.bank_words,
        word_bytes=config.word_bytes,
    )


@dataclass
class Bench:
    """Feeds commands to both queues and models everything around the array."""

    config: NpuConfig
    stall: float = 0.0
    seed: int = 1
    commands: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    contexts: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)
    memory: np.ndarray | None = None
    tiles: list[np.ndarray] = field(default_factory=list)  # int32 [t_used, R, C] each
    tile_interval: int = 0

    def __post_init__(self) -> None:
        c = self.config
        self.spad = np.zeros((c.rows, c.bank_words, c.word_bytes), np.uint8)
        self.ka = np.zeros((c.rows, c.bank_words), np.uint8)
        self.beats: list[int] = []
        self.finished: list[tuple[int, str]] = []
        self.errors: dict[str, tuple[int, int, int]] = {}
        self.cycle = 0

    def run(self, *, cycles: int = 20_000) -> None:
        """Until every command is done or an error shows, at most `cycles` cycles."""
        self.rng = random.Random(self.seed)
        print("seed", self.seed)
        self.dut = build(self.config)
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(self._main(cycles))
        for port, is_write in ((self.dut.x, False), (self.dut.y, False), (self.dut.write, True)):
            sim.add_testbench(self._write_port(port) if is_write else self._read_port(port), background=True)
        sim.add_testbench(self._drain, background=True)
        sim.run()

    def _go(self) -> int:
        return int(self.rng.random() >= self.stall)

    def _read_port(self, port):
        async def process(ctx):
            pipe = [0] * SPAD_LATENCY
            while True:
                ready = self._go()
                ctx.set(port.req.ready, ready)
                *_, valid, bank, addr = await ctx.tick().sample(
                    port.req.valid, port.req.payload.bank, port.req.payload.addr
                )
                data = self.rng.getrandbits(8 * self.config.word_bytes)
                if valid and ready:
                    data = int.from_bytes(self.spad[bank, addr].tobytes(), "little")
                pipe = [*pipe[1:], data]
                ctx.set(port.data, pipe[0])

        return process

    def _write_port(self, port):
        async def process(ctx):
            while True:
                ready = self._go()
                ctx.set(port.req.ready, ready)
                p = port.req.payload
                *_, valid, bank, addr, data, mask, ka = await ctx.tick().sample(
                    port.req.valid, p.bank, p.addr, p.data, p.mask, p.ka
                )
                if valid and ready:
                    value = np.frombuffer(data.to_bytes(self.config.word_bytes, "little"), np.uint8)
                    enabled = np.array([mask >> i & 1 for i in range(self.config.word_bytes)], bool)
                    self.spad[bank, addr, enabled] = value[enabled]
                    self.ka[bank, addr] = ka

        return process

    async def _drain(self, ctx):
        drain = self.dut.accumulators
        tiles = list(self.tiles)
        pipe = [0] * ACC_LATENCY
        number, wait = 0, self.tile_interval
        while True:
            tile = tiles[0] if tiles and wait <= 0 else None
            ctx.set(drain.tile.valid, tile is not None)
            ctx.set(drain.tile.payload.t_used, 0 if tile is None else len(tile))
            ctx.set(drain.tile.payload.buffer, number & 1)
            *_, ready, en, buffer, t, row = await ctx.tick().sample(
                drain.tile.ready, drain.en, drain.buffer, drain.t, drain.row
            )
            data = self.rng.getrandbits(32 * self.config.cols)
            if en:
                assert tile is not None and buffer == number & 1
                data = int.from_bytes(tile[t, row].astype("<i4").tobytes(), "little")
            pipe = [*pipe[1:], data]
            ctx.set(drain.data.as_value(), pipe[0])
            wait -= 1
            if tile is not None and ready:
                tiles.pop(0)
                number, wait = number + 1, self.tile_interval

    async def _load(self, ctx):
        c = self.config
        contexts = {
            (number * c.columns + column) * 4 + word: value
            for (number, column), fields in self.contexts.items()
            for word, value in enumerate(encode_context(**fields))
        }
        await self._load_elements(ctx, 1, contexts)
        if self.memory is not None:
            memory = self.memory.reshape(-1)
            await self._load_elements(ctx, 0, {int(i): int(memory[i]) & 0xFFFFFFFF for i in np.flatnonzero(memory)})
        await ctx.tick().repeat(4)

    async def _load_elements(self, ctx, context, elements):
        """Group by group."""
        load = self.dut.load
        size = min(len(load.mask), 4) if context else len(load.mask)
        groups = defaultdict(dict)
        for element, value in elements.items():
            groups[element // size * size][element % size] = value
        ctx.set(load.context, context)
        for first, group in groups.items():
            ctx.set(load.element, first)
            ctx.set(load.mask, sum(1 << i for i in group))
            for i, value in group.items():
                ctx.set(load.data[i], value)
            await ctx.tick()
        ctx.set(load.mask, 0)

    def _main(self, cycles):
        async def process(ctx):
            await self._load(ctx)
            pending = {name: [] for name in ("EPILOGUE", "VECTOR")}
            for index, (name, fields) in enumerate(self.commands):
                pending[name].append((index, fields))
            running = {name: [] for name in pending}
            for self.cycle in range(cycles):
                for name, queue in pending.items():
                    issue = getattr(self.dut, name.lower()).issue
                    ctx.set(issue.valid, bool(queue))
                    if queue:
                        ctx.set(issue.payload.index, queue[0][0])
                        for key, value in queue[0][1].items():
                            ctx.set(issue.payload.cmd[key], value)
                        for f in BY_NAME[name].fields:
                            if f.name not in queue[0][1]:
                                ctx.set(issue.payload.cmd[f.name], f.minimum if f.minimum and f.minimum > 0 else 0)
                ports = [getattr(self.dut, name.lower()) for name in pending]
                sample = [
                    v for p in ports
                    for v in (p.issue.ready, p.done, p.error.valid, p.error.cause, p.error.index, p.error.address)
                ]  # fmt: skip
                *_, beat = values = await ctx.tick().sample(*sample, self.dut.beat)
                if beat:
                    self.beats.append(self.cycle)
                for i, name in enumerate(pending):
                    ready, done, error, *what = values[2 + 6 * i : 8 + 6 * i]
                    if done:
                        self.finished.append((running[name].pop(0), name))
                    if pending[name] and ready:
                        running[name].append(pending[name].pop(0)[0])
                    if error:
                        self.errors[name] = tuple(int(v) for v in what)
                if self.errors or (not any(pending.values()) and not any(running.values())):
                    return
            raise AssertionError(f"not done after {cycles} cycles: {running}, {pending}")

        return process
