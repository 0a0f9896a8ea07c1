"""Weight ring against a Python list: order, offsets, level, free, latency, for beats narrower and wider than a word."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.memory.ring import WeightRing


@pytest.mark.parametrize("cols,word,axi", [(1, 4, 8), (3, 8, 8), (3, 8, 4), (2, 4, 16), (5, 4, 8), (8, 16, 16)])
def test_random_traffic(cols: int, word: int, axi: int) -> None:
    entries, seed = 8, cols * 100 + axi
    print("seed", seed)
    rng = random.Random(seed)
    dut = WeightRing(cols=cols, word_bytes=word, entries=entries, axi_bytes=axi)
    size = cols * word

    async def bench(ctx):  # type: ignore[no-untyped-def]
        resident: list[tuple[bytes, int]] = []
        reserved, free, sent = 0, entries, b""
        current: tuple[bytes, int] | None = None
        expect: dict[int, tuple[bytes, int]] = {}
        for cycle in range(600):
            assert ctx.get(dut.read.level) == len(resident)
            assert ctx.get(dut.write.free) == free
            if cycle in expect:
                codes, tag = expect.pop(cycle)
                got = b"".join(ctx.get(dut.read.codes[c]).to_bytes(word, "little") for c in range(cols))
                assert (got, ctx.get(dut.read.tag)) == (codes, tag)
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
                current, sent = (rng.randbytes(size), rng.randrange(256)), b""
                reserved -= 1
            write = current is not None and rng.random() < 0.8
            ctx.set(dut.write.valid, write)
            complete = None
            if write:
                assert current is not None
                part = current[0][len(sent) : len(sent) + axi]
                ctx.set(dut.write.data, int.from_bytes(part.ljust(axi, b"\xee"), "little"))
                ctx.set(dut.write.tag, current[1])
                sent += part
                if len(sent) == size:
                    complete, current = current, None
            resident = resident[release:] + ([complete] if complete else [])
            reserved += reserve
            free += release - reserve
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
