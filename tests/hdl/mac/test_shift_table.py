"""Table of group offset shifts against a dict: layout of the elements, latency, output held."""

import random

import pytest
from amaranth.sim import Simulator

from headrace.mac.shift_table import ShiftTable


@pytest.mark.parametrize("cols,words", [(1, 3), (3, 5), (8, 4), (9, 4), (24, 6)])
def test_random_traffic(cols: int, words: int) -> None:
    seed = cols
    print("seed", seed)
    rng = random.Random(seed)
    dut = ShiftTable(cols=cols, words=words)
    elements = -(-cols // 8)

    async def bench(ctx):  # type: ignore[no-untyped-def]
        table = [[0] * cols for _ in range(words)]
        pending: list[tuple[int, int] | None] = [None] * (dut.WRITE_LATENCY - 1)  # elements not in the table yet
        expected: list[int] | None = None
        for _ in range(300):
            write = (rng.randrange(words * elements), rng.randrange(1 << 32)) if rng.random() < 0.4 else None
            en, word = rng.random() < 0.5, rng.randrange(words)
            ctx.set(dut.write.en, write is not None)
            ctx.set(dut.write.element, write[0] if write else 0)
            ctx.set(dut.write.data, write[1] if write else rng.randrange(1 << 32))
            ctx.set(dut.en, en)
            ctx.set(dut.word, word)
            await ctx.tick()
            if en:
                expected = list(table[word])
            if expected is not None:
                assert [ctx.get(dut.shifts[c]) for c in range(cols)] == expected
            pending.append(write)
            if (done := pending.pop(0)) is not None:
                first = done[0] % elements * 8
                for c in range(first, min(first + 8, cols)):
                    table[done[0] // elements][c] = done[1] >> 4 * (c - first) & 7

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
