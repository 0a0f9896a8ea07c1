"""STORE engine with the AXI writer and a DDR model against the loop nest of its description."""

import random
from collections import deque
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from headrace.interfaces import SPAD_LATENCY
from headrace.isa import Cause
from headrace.memory.axi_writer import AxiWriter
from headrace.memory.store import StoreEngine

from .bus import Ddr, Engine, simulate

DEFAULTS = {"n1": 1, "n2": 1, "n3": 1}
SIZE = 1 << 15


class Bed:
    """Engine, writer, DDR and a scratchpad of random bytes."""

    def __init__(
        self, *, banks: int, words: int, word: int, axi: int, burst: int, seed: int, stall: float = 0.0
    ) -> None:
        print("seed", seed)
        self.rng = random.Random(seed)
        self.banks, self.words, self.word = banks, words, word
        self.spad = self.rng.randbytes(banks * words * word)
        self.store = StoreEngine(
            axi_bytes=axi, burst_beats=burst, outstanding=8, banks=banks, words=words, word_bytes=word
        )
        self.writer = AxiWriter(axi_bytes=axi, burst_beats=burst, outstanding=8, windows=2)
        self.ddr = Ddr(size=SIZE, beat=axi, burst_beats=burst, rng=self.rng, latency=5, stall=stall)
        self.stall = stall
        self.writer_error: Any = None
        self.waits = 0
        self.halt_at = -1

    def run(self, commands: list[dict[str, int]]) -> Engine:
        top = Module()
        top.submodules.store, top.submodules.writer = self.store, self.writer
        connect(top, self.store.bus, self.writer.store)
        driver = Engine([{**DEFAULTS, **c} for c in commands])
        engine = driver.bench(self.store.port)

        async def serve(ctx: Any) -> None:
            """Scratchpad: each request is answered SPAD_LATENCY cycles later, and only then."""
            due: deque[int | None] = deque([None] * SPAD_LATENCY)
            port = self.store.spad
            while True:
                ctx.set(port.req.ready, self.rng.random() >= self.stall)
                value = due.popleft()
                ctx.set(port.data, self.rng.getrandbits(8 * self.word) if value is None else value)
                _, _, valid, ready, item = await ctx.tick().sample(port.req.valid, port.req.ready, port.req.payload)
                at = (item.bank * self.words + item.addr) * self.word
                due.append(int.from_bytes(self.spad[at : at + self.word], "little") if valid and ready else None)

        async def watch(ctx: Any) -> None:
            ctx.set(self.writer.windows[0], {"base": 0, "limit": 7, "read": 0, "write": 1})
            ctx.set(self.writer.windows[1], {"base": 7, "limit": 8, "read": 1, "write": 0})
            cycle = 0
            while True:
                _, _, error, wait = await ctx.tick().sample(self.writer.store_error, self.store.wait_bus)
                cycle += 1
                self.waits += wait
                if error.valid:
                    self.writer_error = (error.cause, error.index, error.address)

        simulate(top, engine, serve, watch, self.ddr.write_port(self.writer.axi))
        return driver

    def expected(self, before: bytes, commands: list[dict[str, int]]) -> bytes:
        out = bytearray(before)
        for given in commands:
            c = {**DEFAULTS, **given}
            s = 1 << c.get("shift", 0)
            for i3 in range(c["n3"]):
                for i2 in range(c["n2"]):
                    for i1 in range(c["n1"]):
                        steps = ((i1, 1), (i2, 2), (i3, 3))
                        for j in range(c["n0"]):
                            address = c["ddr"] + sum(i * c.get(f"s{k}", 0) for i, k in steps) + j
                            pixel = c.get("p0", 0) + sum(i * c.get(f"d{k}", 0) for i, k in steps) + j // c["pix_bytes"]
                            channel = c.get("c0", 0) + j % c["pix_bytes"]
                            addr = c.get("base", 0) + channel // self.word * c.get("plane", 0)
                            addr += pixel // (s * self.banks) * s + pixel % s
                            bank = pixel // s % self.banks
                            out[address] = self.spad[(bank * self.words + addr) * self.word + channel % self.word]
        return bytes(out)


def random_command(bed: Bed) -> dict[str, int]:
    rng = bed.rng
    pix = rng.choice([1, 3, 4, bed.word, 2 * bed.word, 2 * bed.word + 3, rng.randrange(1, 60)])
    return {
        "ddr": 400 + rng.randrange(8192), "n0": rng.choice([pix, 3 * pix, max(1, 2 * pix - 1)]), "pix_bytes": pix,
        "c0": rng.choice([0, rng.randrange(3 * bed.word)]), "n1": rng.randrange(1, 4), "n2": rng.randrange(1, 3),
        "n3": rng.randrange(1, 3), "s1": rng.choice([pix, 256, -77, 1000]), "s2": rng.randrange(3000),
        "s3": rng.randrange(9000), "d1": 4, "d2": 13, "d3": 27, "p0": rng.randrange(9), "shift": rng.randrange(4),
        "base": rng.randrange(20), "plane": 90,
    }  # fmt: skip


@pytest.mark.parametrize(
    "banks,word,axi,burst", [(1, 4, 4, 8), (3, 4, 8, 16), (1, 8, 8, 4), (4, 16, 16, 16), (3, 16, 4, 8), (2, 4, 16, 4)]
)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_bytes(banks: int, word: int, axi: int, burst: int, stall: float) -> None:
    seed = banks * 1000 + word * 10 + axi
    bed = Bed(banks=banks, words=2048, word=word, axi=axi, burst=burst, seed=seed, stall=stall)
    commands = [random_command(bed) for _ in range(4)]
    before = bytes(bed.ddr.memory)
    driver = bed.run(commands)
    assert driver.error is None and bed.writer_error is None
    assert bytes(bed.ddr.memory) == bed.expected(before, commands)


@pytest.mark.parametrize("word,axi", [(16, 16), (8, 16), (16, 4)])
@pytest.mark.parametrize("misaligned", [0, 3])
def test_contiguous_rate(word: int, axi: int, misaligned: int) -> None:
    bed = Bed(banks=4, words=2048, word=word, axi=axi, burst=16, seed=1)
    size = 96 * max(word, axi)
    driver = bed.run([{"ddr": misaligned, "n0": size, "pix_bytes": word, "plane": 1}])
    print("overhead", driver.cycles - size // min(word, axi))
    assert driver.cycles <= size // min(word, axi) + 60, driver.cycles


@pytest.mark.parametrize("n0,ddr", [(16, 0), (16, 5), (48, 0), (48, 9), (64, 0)])
def test_small_segments(n0: int, ddr: int) -> None:
    """Segments of 1 to 5 beats, 256 bytes apart: at most two cycles more than their beats or words."""
    bed = Bed(banks=4, words=2048, word=16, axi=16, burst=16, seed=2)
    driver = bed.run([{"ddr": ddr, "n0": n0, "n1": 64, "s1": 256, "d1": n0 // 16, "pix_bytes": 16}])
    beats = (ddr % 16 + n0 + 15) // 16
    print("cycles a segment", (driver.cycles - 40) / 64)
    assert driver.cycles - 40 <= 64 * (beats + 2), driver.cycles


def test_gap_between_commands() -> None:
    bed = Bed(banks=4, words=2048, word=16, axi=16, burst=16, seed=4)
    bed.ddr.latency = 40
    driver = bed.run([{"ddr": 1024 * i, "n0": 1024, "pix_bytes": 16, "p0": 64 * i} for i in range(4)])
    gaps = [b - a - 64 for a, b in zip(driver.done_at, driver.done_at[1:])]
    print("gaps", gaps)
    assert max(gaps) <= 10, gaps


@pytest.mark.parametrize(
    "command,error",
    [
        ({"base": 60, "p0": 10, "ddr": 0}, (Cause.RANGE, 65)),
        ({"d1": -1, "n1": 2, "ddr": 0}, (Cause.RANGE, None)),
        ({"d1": 1 << 18, "n1": 65535, "ddr": 0}, (Cause.RANGE, None)),
    ],
)
def test_range_errors(command: dict[str, int], error: tuple[Cause, int | None]) -> None:
    bed = Bed(banks=2, words=64, word=16, axi=16, burst=8, seed=3)
    driver = bed.run([{"n0": 64, "pix_bytes": 16, "ddr": 64}, {"n0": 64, "pix_bytes": 16, **command}])
    assert driver.error[:2] == (error[0].value, 101)
    assert error[1] is None or driver.error[2] == error[1]
