"""Rules between the fields of a MAC command: what is refused, and by which rule first."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from headrace.isa import Cause
from headrace.isa.commands import MAC
from headrace.mac.legal import LegalCheck

from .reference import Machine, defaults

NARROW = Machine(rows=1, cols=4, lanes=4, accs=6)
FULL = Machine(rows=1, cols=8, lanes=8, accs=6, kc_words=9)
DOUBLE = Machine(rows=1, cols=16, lanes=16, accs=6)
BIG = Machine(rows=1, cols=32, lanes=32, accs=6)

LEGAL = [
    (NARROW, dict(scales=1)),
    (NARROW, dict(t_count=6, t_last=6, fold=1, mode=2, group_tiles=3, cw=9)),
    (FULL, dict(scales=1, mode=2, t_count=6, t_last=6, kc_base=3, n_tiles=6)),
    (FULL, dict(scales=1, mode=0, kc_base=9, n_tiles=60000)),
    (FULL, dict(mode=1, kc_base=4095, n_tiles=9)),
    (DOUBLE, dict(scales=1, mode=1)),
    (BIG, dict(mode=2)),
    (NARROW, dict(depthwise=1, kw=4, kh=9, t_count=3, t_last=3)),
]

WRONG = [
    (FULL, dict(scales=1, fold=1), "scales"),
    (BIG, dict(scales=1), "scales"),
    (DOUBLE, dict(scales=1, mode=2), "scales"),
    (NARROW, dict(scales=1, t_count=2), "scales"),
    (NARROW, dict(scales=1, t_last=2, kc_base=4000, mode=1), "scales"),
    (NARROW, dict(depthwise=1, mode=1, fold=1), "mode"),
    (NARROW, dict(depthwise=1, fold=1, cw=2), "fold"),
    (NARROW, dict(depthwise=1, scales=1, cw=2), "scales"),
    (NARROW, dict(depthwise=1, cw=2, group_tiles=1), "cw"),
    (NARROW, dict(depthwise=1, group_tiles=1, kw=5), "group_tiles"),
    (NARROW, dict(depthwise=1, kw=5, t_count=4), "kw"),
    (NARROW, dict(depthwise=1, kw=255), "kw"),
    (NARROW, dict(depthwise=1, t_count=4, t_last=4), "t_count"),
    (NARROW, dict(depthwise=1, t_last=4), "t_last"),
]


def check(machine, fields):
    """(cause, address) of the first broken rule, None when legal."""
    dut = LegalCheck(
        lanes=machine.lanes, accs=machine.accs, kc_words=machine.kc_words, taps=machine.taps, halves=machine.halves
    )
    results = []

    async def bench(ctx):
        ctx.set(dut.cmd, defaults() | fields)
        results.append(None if ctx.get(dut.legal) else (ctx.get(dut.cause), ctx.get(dut.address)))

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
    return results[0]


@pytest.mark.parametrize("machine,fields", LEGAL)
def test_legal(machine, fields):
    assert check(machine, fields) is None


@pytest.mark.parametrize("machine,fields,name", WRONG)
def test_names_the_first_field(machine, fields, name):
    assert check(machine, fields) == (Cause.MALFORMED, MAC[name].offset)


@pytest.mark.parametrize("kc_base,n_tiles", [(5, 5), (4095, 1), (0, 65535)])
def test_table_of_shifts_is_long_enough(kc_base, n_tiles):
    fields = dict(scales=1, mode=1, kc_base=kc_base, n_tiles=n_tiles)
    assert check(FULL, fields) == (Cause.RANGE, kc_base + n_tiles - 1)
