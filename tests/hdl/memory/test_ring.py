"""Weight ring against a Python list: order, offsets, level, free, latency, for beats narrower and wider than a word,
entries with and without group scales."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.memory.ring import WeightRing


@pytest.mark.parametrize(
    "cols,word,axi,groups",
    [(1, 4, 8, 1), (3, 8, 8, 1), (3, 8, 4, 2), (2, 4, 16, 1), (5, 4, 8, 1), (8, 16, 16, 2), (3, 16, 4, 4)],
)
def test_random_traffic(cols: int, word: int, axi: int, groups: int) -> None:
    entries, seed = 8, cols * 100 + axi
    print("seed", seed)
    rng = random.Random(seed)
    size, scale_size = cols * word, 2 * cols * groups
    dut = WeightRing(
        cols=cols, word_bytes=word, entries=entries, axi_bytes=axi, groups=groups, scale_beats=-(-scale_size // axi)
    )

    def beats(content: bytes) -> list[int]:
        parts = [content[i : i + axi] for i in range(0, len(content), axi)]
        return [int.from_bytes(part.ljust(axi, b"\xee"), "little") for part in parts]

    async def bench(ctx):  # type: ignore[no-untyped-def]
        resident: list[tuple[bytes, bytes, int]] = []
        reserved, free = 0, entries
        current: tuple[bytes, bytes, int] | None = None
        left: list[int] = []  # beats of `current`
        expect: dict[int, tuple[bytes, bytes, int]] = {}
        for cycle in range(600):
            assert ctx.get(dut.read.level) == len(resident)
            assert ctx.get(dut.write.free) == free
            if cycle in expect:
                codes = b"".join(ctx.get(dut.read.codes[c]).to_bytes(word, "little") for c in range(cols))
                scales = b"".join(ctx.get(dut.read.scales[c]).to_bytes(2 * groups, "little") for c in range(cols))
                assert (codes, scales, ctx.get(dut.read.tag)) == expect.pop(cycle)
            read = rng.random() < 0.7 and bool(resident)
            offset = rng.randrange(len(resident)) if resident else 0
            ctx.set(dut.read.en, read)
            ctx.set(dut.read.offset, offset)
            if read:
                expect[cycle + dut.LATENCY] = resident[offset]
            release = rng.randrange(len(resident) + 1) if rng.random() < 0.1 else 0
            ctx.set(dut.read.release, release)
            reserve = rng.randrange(free + 1) if rng.random() < 0.3 else 0
            ctx.set(dut.write.reserve, reserve)
            if current is None and reserved and rng.random() < 0.8:
                scaled = rng.random() < 0.5
                scales = rng.randbytes(scale_size) if scaled else bytes(scale_size)
                current = rng.randbytes(size), scales, rng.randrange(256)
                left = beats(current[0]) + (beats(scales) if scaled else [])
                ctx.set(dut.write.scales, scaled)
                reserved -= 1
            write = current is not None and rng.random() < 0.8
            ctx.set(dut.write.valid, write)
            complete = None
            if write:
                assert current is not None
                ctx.set(dut.write.data, left.pop(0))
                ctx.set(dut.write.tag, current[2])
                if not left:
                    complete, current = current, None
            resident = resident[release:] + ([complete] if complete else [])
            reserved += reserve
            free += release - reserve
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
