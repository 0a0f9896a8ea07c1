"""WEIGHT engine and ring: entries in order with tags and scales, rate, back-pressure, small rings, alignment error."""

import random
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from headrace.isa import Cause
from headrace.memory.ring import WeightRing
from headrace.memory.weight import WeightEngine

from .bus import Engine, Reader, simulate

GROUPS = 2


class Bed:
    """Engine, ring, and a consumer which reads every entry in order and releases it."""

    def __init__(self, *, cols: int, word: int, axi: int, burst: int, entries: int, seed: int) -> None:
        print("seed", seed)
        self.rng = random.Random(seed)
        self.size = cols * word
        self.scale_size = 2 * cols * GROUPS
        self.ring = WeightRing(
            cols=cols,
            word_bytes=word,
            entries=entries,
            axi_bytes=axi,
            groups=GROUPS,
            scale_beats=-(-self.scale_size // axi),
        )
        self.axi = axi
        self.engine = WeightEngine(
            axi_bytes=axi,
            burst_beats=burst,
            outstanding=16,
            entries=entries,
            entry_beats=self.ring.entry_beats,
            scale_beats=self.ring.scale_beats,
        )
        self.memory = self.rng.randbytes(1 << 14)
        self.reader = Reader(memory=self.memory, beat=axi, burst_beats=burst, outstanding=16, rng=self.rng)
        self.cols, self.word, self.entries = cols, word, entries
        self.got: list[tuple[bytes, bytes, int]] = []
        self.level_wanted = 1

    def run(self, commands: list[dict[str, int]], chance: float = 1.0) -> Engine:
        top = Module()
        top.submodules.ring, top.submodules.engine = self.ring, self.engine
        connect(top, self.engine.ring, self.ring.write)
        driver = Engine(commands)

        async def consume(ctx: Any) -> None:
            port = self.ring.read
            while True:
                if ctx.get(port.level) >= self.level_wanted and self.rng.random() < chance:
                    ctx.set(port.en, 1)
                    ctx.set(port.offset, self.level_wanted - 1)
                    await ctx.tick()
                    ctx.set(port.en, 0)
                    await ctx.tick()
                    codes = b"".join(ctx.get(port.codes[c]).to_bytes(self.word, "little") for c in range(self.cols))
                    scales = b"".join(ctx.get(s).to_bytes(2 * GROUPS, "little") for s in port.scales)
                    self.got.append((codes, scales, ctx.get(port.tag)))
                    ctx.set(port.release, self.level_wanted)
                    await ctx.tick()
                    ctx.set(port.release, 0)
                await ctx.tick()

        simulate(top, driver.bench(self.engine.port), consume, self.reader.serve(self.engine.bus))
        return driver

    def expected(self, commands: list[dict[str, int]]) -> list[tuple[bytes, bytes, int]]:
        return [
            self._entry(c, run * c.get("step", 0), e)
            for c in commands
            for _ in range(c["repeat"])
            for run in range(c["outer"])
            for e in range(c["entries"])
        ]

    def _entry(self, command: dict[str, int], offset: int, number: int) -> tuple[bytes, bytes, int]:
        scaled = command.get("scales", 0)
        codes = self.ring.entry_beats * self.axi
        at = command["ddr"] + offset + number * (codes + scaled * self.ring.scale_beats * self.axi)
        scales = self.memory[at + codes :][: self.scale_size] if scaled else bytes(self.scale_size)
        return self.memory[at:][: self.size], scales, command["tag"]


@pytest.mark.parametrize(
    "cols,word,axi,burst,entries",
    [(1, 4, 8, 16, 4), (3, 8, 8, 4, 8), (2, 4, 4, 8, 16), (8, 16, 16, 16, 32), (5, 4, 8, 4, 4)],
)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_entries_and_tags(cols: int, word: int, axi: int, burst: int, entries: int, stall: float) -> None:
    bed = Bed(cols=cols, word=word, axi=axi, burst=burst, entries=entries, seed=cols * 10 + axi)
    bed.reader.stall = stall
    commands = [
        {
            "ddr": bed.rng.randrange(16, 64) * axi,
            "entries": bed.rng.randrange(1, 12),
            "repeat": r,
            "outer": bed.rng.randrange(1, 4),
            "step": bed.rng.randrange(-8, 40) * axi,
            "tag": 17 + r,
            "scales": s,
        }
        for r, s in ((1, 0), (3, 1), (2, 0), (1, 1))
    ]
    driver = bed.run(commands, 1 - stall)
    expected = bed.expected(commands)
    assert driver.error is None and len(driver.done_at) == len(commands)
    assert len(bed.got) >= len(expected) - entries and bed.got == expected[: len(bed.got)]


@pytest.mark.parametrize("scales", [0, 1])
def test_full_ring_is_needed_before_release(scales: int) -> None:
    """The consumer waits for a full ring, as a replayed tile does: bursts are cut so that it can fill."""
    bed = Bed(cols=1, word=4, axi=8, burst=16, entries=4, seed=5)
    bed.level_wanted = 4
    driver = bed.run([{"ddr": 0, "entries": 12, "repeat": 1, "outer": 1, "tag": 1, "scales": scales}])
    assert driver.error is None


@pytest.mark.parametrize("scales", [0, 1])
def test_rate(scales: int) -> None:
    """With room in the ring: one beat a cycle, whatever the latency, and no gap between commands."""
    bed = Bed(cols=4, word=8, axi=8, burst=8, entries=128, seed=6)
    bed.reader.latency = 60
    driver = bed.run(
        [
            {"ddr": 0, "entries": 60, "repeat": 1, "outer": 1, "tag": 1, "scales": scales},
            {"ddr": 32, "entries": 30, "repeat": 2, "outer": 1, "tag": 2, "scales": scales},
        ]
    )
    beats = 120 * (4 + 2 * scales)
    assert driver.cycles - 60 <= beats + 24, driver.cycles
    assert len(bed.reader.bursts) <= beats // 8 + 4


@pytest.mark.parametrize("step", [40, -48])
def test_rate_of_runs(step: int) -> None:
    """Runs of few entries follow each other as entries do."""
    bed = Bed(cols=4, word=8, axi=8, burst=8, entries=128, seed=8)
    bed.reader.latency = 60
    command = {"ddr": 4096, "entries": 8, "repeat": 2, "outer": 6, "step": step * 8, "tag": 1}
    driver = bed.run([command])
    assert driver.cycles - 60 <= 96 * 4 + 24, driver.cycles
    expected = bed.expected([command])
    assert bed.got == expected[: len(bed.got)]


@pytest.mark.parametrize("place", [{"ddr": 1004}, {"ddr": 1000, "step": 12}])
def test_alignment(place: dict[str, int]) -> None:
    bed = Bed(cols=4, word=8, axi=8, burst=8, entries=16, seed=7)
    first = {"ddr": 8, "entries": 2, "repeat": 1, "outer": 1, "tag": 1}
    driver = bed.run([first, {"entries": 1, "repeat": 1, "outer": 1, **place}])
    assert driver.error == (Cause.ALIGN.value, 101, place["ddr"])
