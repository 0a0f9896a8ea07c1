"""Conversions between bytes and lanes: corners of every type, and all nibbles, bytes and halves of the narrow ones."""

import random
from collections.abc import Sequence

from amaranth import Module, Signal
from amaranth.hdl import Value
from amaranth.sim import Simulator

from headrace.dataflow.beat import vector_layout
from headrace.dataflow.elements import Conversion, narrow, valid_lanes, widen
from headrace.isa import DType

from .elements import beat_size, decode, encode

LANES = 7  # odd, so that the last byte of an I4 beat has one element


def simulate(m: Module, process) -> None:
    sim = Simulator(m)
    sim.add_testbench(process)
    sim.run()


def check_narrow(kind: DType, values: Sequence[int], *conversions: tuple[int, int, int]) -> None:
    """Lanes holding `values`, LANES at a time, under each (zp, lo, hi)."""
    m, x, conversion, lanes = Module(), Signal(vector_layout(LANES)), Signal(Conversion), Signal(4)
    out = Signal(32 * LANES)
    m.d.comb += out.eq(narrow(m, Value.cast(1), kind, conversion, x, valid_lanes(m, lanes, most=LANES)))

    async def process(ctx):
        for zp, lo, hi in conversions:
            ctx.set(conversion, {"zp": zp, "lo": lo, "hi": hi})
            for start in range(0, len(values), LANES):
                beat = [v & 0xFFFFFFFF for v in values[start : start + LANES]]
                count = start // LANES % LANES + 1 if len(beat) == LANES else len(beat)
                ctx.set(lanes, count)
                ctx.set(x, beat + [0xFFFFFFFF] * (LANES - len(beat)))
                expected = encode(kind, beat[:count], zp=zp, lo=lo, hi=hi)
                got = ctx.get(out) & (1 << 8 * len(expected)) - 1
                assert got == int.from_bytes(expected, "little"), ([hex(v) for v in beat], zp, lo, hi)

    simulate(m, process)


def check_widen(kind: DType, raw: bytes) -> None:
    """Beats taken from `raw` one after the other, of every number of lanes."""
    size = beat_size(kind, LANES)
    m, beat, lanes, out = Module(), Signal(32 * LANES), Signal(4), Signal(32 * LANES)
    widen(m, Value.cast(1), kind, [beat[8 * i : 8 * i + 8] for i in range(4 * LANES)],
          valid_lanes(m, lanes, most=LANES), out)  # fmt: skip

    async def process(ctx):
        for number, start in enumerate(range(0, len(raw), size)):
            part = raw[start : start + size].ljust(4 * LANES, b"\xa5")
            count = LANES if number % 4 else number // 4 % (LANES + 1)
            ctx.set(lanes, count)
            ctx.set(beat, int.from_bytes(part, "little"))
            expected = decode(kind, part, count) + [0] * (LANES - count)
            got = ctx.get(out)
            assert [got >> 32 * i & 0xFFFFFFFF for i in range(LANES)] == expected

    simulate(m, process)


def integers() -> list[int]:
    """Around every bound of the integer types, small ones all, and random ones."""
    corners = [0, 127, 128, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1]
    near = [s * (c + d) for c in corners for d in range(-2, 3) for s in (1, -1)]
    rng = random.Random(9)
    values = [*range(-300, 301), *near, *(rng.randrange(-(1 << 31), 1 << 31) for _ in range(100))]
    return [max(-(1 << 31), min((1 << 31) - 1, v)) for v in values]


def test_narrow_codes():
    """I8, U8 and I4, also with limits the wrong way round: the largest code wins."""
    limits = [(0, -128, 127), (-128, -128, 127), (127, -7, 100), (3, -8, 7), (-5, 0, -1), (0, 50, -50)]
    for kind in (DType.I8, DType.U8, DType.I4):
        check_narrow(kind, integers(), *limits)


def test_narrow_i16_saturates():
    check_narrow(DType.I16, integers(), (0, 0, 0), (127, 0, 0), (-128, 5, -5))


def test_narrow_unchanged():
    check_narrow(DType.B32, integers(), (5, -1, 1))


def test_narrow_bf16():
    """All signs and exponents with fractions around both kinds of tie and at the ends."""
    low = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    high = [0, 1, 2, 0x3F, 0x40, 0x7E, 0x7F]
    check_narrow(DType.BF16, [e << 23 | h << 16 | f for e in range(512) for h in high for f in low], (1, 0, 0))


def test_widen():
    """All bytes and nibbles; all halves within a stride, in every position of the beat."""
    raw = bytes(range(256)) * 7
    for kind in (DType.I8, DType.U8, DType.I4, DType.B32):
        check_widen(kind, raw)
    halves = b"".join(v.to_bytes(2, "little") for v in range(0, 1 << 16, 13))
    for kind in (DType.I16, DType.BF16):
        check_widen(kind, halves)
