"""LOAD engine against the loop nest of its description: scratchpad, fill, elements, errors, cycles."""

import random
from typing import Any

import pytest

from headrace.isa import Cause, Dest
from headrace.isa.commands import LOAD
from headrace.memory.load import LoadEngine

from .bus import Engine, Reader, simulate

FIELDS = {"n1": 1, "n2": 1, "n3": 1}


class Bed:
    """Engine with models around it; `spad` collects bytes by (bank, address, byte), `elements` by (dest, number)."""

    def __init__(self, *, banks: int, words: int, word: int, axi: int, burst: int, seed: int, at_once: int = 1) -> None:
        print("seed", seed)
        self.rng = random.Random(seed)
        self.banks, self.words, self.word, self.axi = banks, words, word, axi
        self.memory = self.rng.randbytes(1 << 15)
        self.dut = LoadEngine(
            axi_bytes=axi, burst_beats=burst, outstanding=16, data_beats=8 * burst, banks=banks, words=words,
            word_bytes=word, column_elements=304, context_elements=40, kc_elements=20, load_elements=at_once,
        )  # fmt: skip
        self.reader = Reader(memory=self.memory, beat=axi, burst_beats=burst, outstanding=16, rng=self.rng)
        self.refuse = 0.0
        self.spad: dict[tuple[int, int, int], int] = {}
        self.at_once = at_once
        self.elements: dict[tuple[Dest, int], int] = {}
        self.writes = 0

    def run(self, commands: list[dict[str, int]]) -> Engine:
        driver = Engine([{**FIELDS, **c} for c in commands])
        dut = self.dut

        async def collect(ctx: Any) -> None:
            request = dut.spad.req
            while True:
                ctx.set(request.ready, self.rng.random() >= self.refuse)
                _, _, ready, valid, item, *elements = await ctx.tick().sample(
                    *(request.ready, request.valid, request.payload),
                    *(dut.column.mask, dut.column.context, dut.column.element, dut.column.data.as_value()),
                    *(dut.kc.en, dut.kc.element, dut.kc.data),
                )
                mask, context, first, column_data = elements[:4]
                kc, *kc_write = elements[4:]
                if ready and valid:
                    assert item.ka == 0
                    self.writes += 1
                    for i in range(self.word):
                        if item.mask >> i & 1:
                            self.spad[item.bank, item.addr, i] = item.data >> 8 * i & 0xFF
                if mask:
                    assert first % (min(self.at_once, 4) if context else self.at_once) == 0
                for i in range(self.at_once):
                    if mask >> i & 1:
                        value = column_data >> 32 * i & 0xFFFFFFFF
                        self.element(Dest.CONTEXT if context else Dest.COLUMN, first + i, value)
                if kc:
                    self.element(Dest.KC, *kc_write)

        simulate(dut, driver.bench(dut.port), collect, self.reader.serve(dut.bus))
        return driver

    def element(self, dest: Dest, number: int, value: int) -> None:
        assert (dest, number) not in self.elements
        self.elements[dest, number] = value

    def place(self, c: dict[str, int], pixel: int, channel: int) -> tuple[int, int, int]:
        s = 1 << c.get("shift", 0)
        addr = c.get("base", 0) + channel // self.word * c.get("plane", 0)
        addr += pixel // (s * self.banks) * s + pixel % s
        return pixel // s % self.banks, addr, channel % self.word

    def bytes_of(self, c: dict[str, int]) -> Any:
        """(DDR address, pixel or element base, byte of the segment), in order."""
        c = {**FIELDS, **c}
        for i3 in range(c["n3"]):
            for i2 in range(c["n2"]):
                for i1 in range(c["n1"]):
                    steps = ((i1, 1), (i2, 2), (i3, 3))
                    address = c.get("ddr", 0) + sum(i * c.get(f"s{k}", 0) for i, k in steps)
                    pixel = sum(i * c.get(f"d{k}", 0) for i, k in steps)
                    for j in range(c["n0"]):
                        yield address + j, pixel, j

    def expected(self, commands: list[dict[str, int]]) -> dict[tuple[int, int, int], int]:
        out = {}
        for c in commands:
            for address, pixel, j in self.bytes_of(c):
                at = c.get("p0", 0) + pixel + j // c["pix_bytes"], c.get("c0", 0) + j % c["pix_bytes"]
                out[self.place(c, *at)] = c["fill_value"] if c.get("fill") else self.memory[address]
        return out


def random_command(bed: Bed) -> dict[str, int]:
    rng = bed.rng
    pix = rng.choice([1, 3, 4, bed.word, 2 * bed.word, 2 * bed.word + 3, rng.randrange(1, 60)])
    c0 = rng.choice([0, 0, rng.randrange(3 * bed.word)])
    command = {
        "ddr": rng.randrange(8192), "n0": rng.choice([pix, 3 * pix, max(1, 2 * pix - 1)]), "pix_bytes": pix, "c0": c0,
        "n1": rng.randrange(1, 4), "n2": rng.randrange(1, 3), "n3": rng.randrange(1, 3),
        "s1": rng.choice([pix, 256, -77, 1000]), "s2": rng.randrange(3000), "s3": rng.randrange(9000),
        "d1": 4, "d2": 13, "d3": 27, "p0": rng.randrange(9), "shift": rng.randrange(4), "base": rng.randrange(20),
        "plane": 90, "fill": int(rng.random() < 0.2), "fill_value": rng.randrange(256),
    }  # fmt: skip
    command["ddr"] += 400
    return command


@pytest.mark.parametrize(
    "banks,word,axi,burst", [(1, 4, 4, 8), (3, 4, 8, 16), (1, 8, 8, 4), (4, 16, 16, 16), (3, 16, 4, 8), (2, 4, 16, 4)]
)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_scratchpad(banks: int, word: int, axi: int, burst: int, stall: float) -> None:
    bed = Bed(banks=banks, words=2048, word=word, axi=axi, burst=burst, seed=banks * 1000 + word * 10 + axi)
    bed.refuse = bed.reader.stall = stall
    commands = [random_command(bed) for _ in range(4)]
    driver = bed.run(commands)
    assert driver.error is None
    assert bed.spad == bed.expected(commands)
    fetched = {index for _, _, index in bed.reader.bursts}
    assert fetched == {100 + i for i, c in enumerate(commands) if not c["fill"]}


@pytest.mark.parametrize(
    "word,axi,at_once",
    [(4, 4, 1), (8, 16, 1), (16, 8, 2), (4, 32, 2), (16, 16, 4), (4, 16, 4), (16, 32, 8), (4, 64, 8)],
)
@pytest.mark.parametrize("stall", [0.0, 0.2])
def test_elements(word: int, axi: int, at_once: int, stall: float) -> None:
    bed = Bed(banks=2, words=64, word=word, axi=axi, burst=8, seed=word + axi, at_once=at_once)
    bed.reader.stall = stall
    commands = [
        {"dest": Dest.COLUMN, "ddr": 404, "n0": 40, "n1": 3, "s1": 64, "d1": 12, "element": 7, "pix_bytes": 9, "c0": 3},
        {"dest": Dest.CONTEXT, "ddr": 1000, "n0": 160, "pix_bytes": 1, "element": 0},
        {"dest": Dest.KC, "ddr": 800, "n0": 16, "n1": 2, "s1": 20, "d1": 6, "pix_bytes": 1, "element": 10},
    ]
    start = 48
    while start < 290:  # short and long segments that begin and end anywhere in a group
        size, count = bed.rng.choice([1, 2, 3, 5, 8, 17]), bed.rng.randrange(1, 3)
        ddr, step = 4 * bed.rng.randrange(9, 1000), size + bed.rng.randrange(3)
        command = {"ddr": ddr, "n0": 4 * size, "n1": count, "s1": bed.rng.choice([4 * size, 300, -36]), "d1": step}
        if start + count * step <= 304:
            commands.append({"dest": Dest.COLUMN, "element": start, "pix_bytes": 1, **command})
        start += count * step
    driver = bed.run(commands)
    assert driver.error is None and not bed.spad
    expected = {}
    for c in commands:
        for address, first, j in bed.bytes_of(c):
            if j % 4 == 0:
                at = c["element"] + first + j // 4
                expected[Dest(c["dest"]), at] = int.from_bytes(bed.memory[address : address + 4], "little")
    assert bed.elements == expected


@pytest.mark.parametrize("at_once", [1, 4, 8])
@pytest.mark.parametrize("dest,element,count", [(Dest.COLUMN, 0, 304), (Dest.COLUMN, 1, 302), (Dest.CONTEXT, 0, 40)])
def test_element_rate(at_once: int, dest: Dest, element: int, count: int) -> None:
    """A group of elements a cycle, and a constant, with a latency of 60 cycles."""
    bed = Bed(banks=2, words=64, word=16, axi=4 * at_once, burst=16, seed=5, at_once=at_once)
    bed.reader.latency = 60
    driver = bed.run([{"dest": dest, "ddr": 4, "n0": 4 * count, "element": element, "pix_bytes": 1}])
    assert len(bed.elements) == count
    group = min(at_once, 4) if dest is Dest.CONTEXT else at_once
    groups = (element + count - 1) // group - element // group + 1
    print("overhead", driver.cycles - groups)
    assert driver.cycles <= groups + 60 + 15, driver.cycles


@pytest.mark.parametrize(
    "dest,element,outside", [(Dest.COLUMN, 301, 304), (Dest.COLUMN, 309, 309), (Dest.CONTEXT, 37, 40), (Dest.KC, 3, 20)]
)
@pytest.mark.parametrize("at_once", [4, 8])
def test_elements_outside(dest: Dest, element: int, outside: int, at_once: int) -> None:
    """The elements before the first one outside are written."""
    bed = Bed(banks=2, words=64, word=16, axi=32, burst=8, seed=6, at_once=at_once)
    driver = bed.run([{"dest": dest, "ddr": 8, "n0": 80, "element": element, "pix_bytes": 1}])
    assert driver.error == (Cause.RANGE, 100, outside)
    assert sorted(bed.elements) == [(dest, number) for number in range(element, outside)]


@pytest.mark.parametrize(
    "command,error",
    [
        ({"n0": 64, "pix_bytes": 16, "base": 60, "p0": 10}, (Cause.RANGE, 65)),
        ({"n0": 64, "pix_bytes": 16, "d1": -1, "n1": 2}, (Cause.RANGE, None)),
        ({"n0": 64, "pix_bytes": 16, "d1": 1 << 18, "n1": 65535}, (Cause.RANGE, None)),
        ({"n0": 16, "pix_bytes": 16, "c0": 65520, "plane": 65535}, (Cause.RANGE, None)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.COLUMN, "element": 301}, (Cause.RANGE, 304)),
        (
            {"n0": 16, "pix_bytes": 4, "dest": Dest.COLUMN, "element": 1, "n1": 2, "d1": -3},
            (Cause.RANGE, (1 << 24) - 2),
        ),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.CONTEXT, "element": 40}, (Cause.RANGE, 40)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.CONTEXT, "ddr": 66}, (Cause.ALIGN, 66)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.KC, "element": 17}, (Cause.RANGE, 20)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.KC, "n1": 2, "s1": 6, "ddr": 64}, (Cause.ALIGN, 64)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.KC, "fill": 1}, (Cause.MALFORMED, LOAD["fill"].offset)),
        ({"n0": 16, "pix_bytes": 4, "dest": Dest.COLUMN, "fill": 1}, (Cause.MALFORMED, LOAD["fill"].offset)),
    ],
)
def test_errors(command: dict[str, int], error: tuple[Cause, int | None]) -> None:
    bed = Bed(banks=2, words=64, word=16, axi=16, burst=8, seed=3, at_once=4)
    driver = bed.run([{"n0": 64, "pix_bytes": 16}, command])
    cause, index, address = driver.error
    assert (cause, index) == (error[0], 101)
    if error[1] is not None:
        assert address == error[1]


@pytest.mark.parametrize("word,axi", [(16, 16), (8, 16), (16, 4)])
@pytest.mark.parametrize("misaligned", [0, 3])
def test_contiguous_rate(word: int, axi: int, misaligned: int) -> None:
    """One word or beat a cycle with a latency of 60 cycles, once data flows."""
    bed = Bed(banks=4, words=2048, word=word, axi=axi, burst=16, seed=1)
    bed.reader.latency = 60
    size = 96 * max(word, axi)
    driver = bed.run([{"ddr": misaligned, "n0": size, "pix_bytes": word, "plane": 1}])
    assert bed.spad == bed.expected([{"ddr": misaligned, "n0": size, "pix_bytes": word, "plane": 1}])
    print("overhead", driver.cycles - size // min(word, axi))
    assert driver.cycles <= size // min(word, axi) + 60 + 20, driver.cycles


@pytest.mark.parametrize("n0,ddr", [(16, 0), (16, 5), (48, 0), (48, 9), (64, 0)])
def test_small_segments(n0: int, ddr: int) -> None:
    """Segments of 1 to 5 beats, 256 bytes apart: at most two cycles more than their beats or words."""
    bed = Bed(banks=4, words=2048, word=16, axi=16, burst=16, seed=2)
    bed.reader.latency = 20
    command = {"ddr": ddr, "n0": n0, "n1": 64, "s1": 256, "d1": n0 // 16, "pix_bytes": 16}
    driver = bed.run([command])
    assert bed.spad == bed.expected([command])
    beats = (ddr % 16 + n0 + 15) // 16
    print("cycles a segment", (driver.cycles - 40) / 64)
    assert driver.cycles - 40 <= 64 * (beats + 2), driver.cycles


def test_gap_between_commands() -> None:
    bed = Bed(banks=4, words=2048, word=16, axi=16, burst=16, seed=4)
    bed.reader.latency = 40
    driver = bed.run([{"ddr": 1024 * i, "n0": 1024, "pix_bytes": 16, "p0": 64 * i} for i in range(4)])
    gaps = [b - a - 64 for a, b in zip(driver.done_at, driver.done_at[1:])]
    print("gaps", gaps)
    assert max(gaps) <= 10, gaps
