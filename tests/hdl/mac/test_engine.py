"""The MAC engine against the loop nest in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.config import Precision
from headrace.isa import Cause
from headrace.isa.commands import MAC

from .bench import Surroundings
from .reference import (
    Entry,
    Machine,
    Memory,
    OutOfRange,
    defaults,
    entry_count,
    phase_count,
    random_command,
    random_entry,
    random_memory,
    tiles,
)

MACHINES = [
    Machine(rows=1, cols=3, lanes=4, accs=3, bank_words=256, multiplier="dsp"),
    Machine(rows=3, cols=2, lanes=2, accs=2, bank_words=128),
    Machine(rows=4, cols=4, lanes=4, accs=4),
    Machine(rows=2, cols=2, lanes=8, accs=3, multiplier="dsp"),
    Machine(rows=2, cols=4, lanes=2, accs=1, bank_words=128),
    Machine(rows=2, cols=1, lanes=16, accs=2),
]


def sequence(rng, machine, memory, count):
    """Commands that stay inside the scratchpad, their ring entries and tiles; some hold their entries for the next."""
    commands, entries, expected = [], [], []
    ring: list = []
    while len(commands) < count:
        cmd = random_command(rng, machine)
        needed = cmd["n_tiles"] * entry_count(cmd, machine)
        group = [cmd]
        if needed <= machine.ring_entries and rng.random() < 0.3:
            group = [cmd | {"hold": 1}, cmd | {"replay": 1}]
        elif cmd["replay"] and entry_count(cmd, machine) > machine.ring_entries:
            continue
        if not group[-1]["replay"]:
            needed *= cmd["m_tiles"]
        ring = [random_entry(rng, machine) for _ in range(needed)]
        fresh = [(e, cmd["tag"]) for e in ring]
        try:
            out = [tile for c in group for tile in tiles(c, machine, memory, ring)]
        except OutOfRange:
            continue
        assert not ring
        commands += group
        entries += fresh
        expected += out
    return commands, entries, expected


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("ring_pace,drain_pace", [(1.0, 1.0), (0.4, 0.1)])
def test_random_commands(machine, ring_pace, drain_pace):
    seed = int(1000 * ring_pace + 10 * drain_pace) + machine.lanes
    rng = np.random.default_rng(seed)
    memory = random_memory(rng, machine)
    commands, entries, expected = sequence(rng, machine, memory, 5)
    bench = Surroundings(
        machine, memory, commands, entries, len(expected), seed=seed, ring_pace=ring_pace, drain_pace=drain_pace
    ).run()
    print(f"seed {seed}, {len(bench.active)} cycles, {sum(bench.active)} active")
    assert bench.error is None
    for i, (got, want) in enumerate(zip(bench.tiles, expected)):
        assert got.shape == want.shape
        assert (got == want).all(), f"tile {i}"


CONV = {"in_h": 6, "in_w": 6, "out_w": 6, "m_count": 36, "kh": 3, "kw": 3, "pad_top": 1, "pad_left": 1}


def resident_ring(rng, machine, cmd, repeat):
    needed = cmd["n_tiles"] * entry_count(cmd, machine) * (1 if cmd["replay"] else cmd["m_tiles"]) * repeat
    return [(random_entry(rng, machine), cmd["tag"]) for _ in range(needed)]


WIDE = Machine(rows=4, cols=1, lanes=8, accs=4)
TILES = dict(t_count=4, t_last=4, m_tiles=2, n_tiles=2, kh=2)
PLANES = dict(in_h=1, in_w=1, out_w=1, m_count=1, kh=1, kw=1, pad_top=0, pad_left=0, in_plane=1)
SMALL = Machine(rows=1, cols=2, lanes=2, accs=1, bank_words=64)
GROUPED = Machine(rows=1, cols=2, lanes=16, accs=2)
A8W4, A4W4 = dict(mode=int(Precision.A8W4)), dict(mode=int(Precision.A4W4))
PACE = {
    "convolution": (WIDE, [dict(TILES, m_tiles=3)] * 2),
    "stride 2": (
        Machine(rows=4, cols=1, lanes=8, accs=4, bank_words=128),
        [dict(TILES, in_shift=1, in_h=12, in_w=12, stride_y=2, stride_x=2)] * 2,
    ),
    "stride 1 of a tensor with s = 2": (
        WIDE, [dict(TILES, in_shift=1, ilv=1, n_tiles=1, in_w=8, in_h=6, out_w=8, m_count=48)] * 3,
    ),
    "fold": (WIDE, [dict(TILES, fold=1, kw=7, in_w=12, in_h=6, out_w=12, m_count=48, n_tiles=1)] * 2),
    "precisions": (WIDE, [dict(TILES, n_tiles=1, **p) for p in (A8W4, A4W4, {}, A4W4, A8W4)]),
    "group scales": (WIDE, [dict(TILES, n_tiles=1, scales=1, **p) for p in (A8W4, A4W4, {})]),
    "two groups an entry": (
        GROUPED, [dict(PLANES, cw=12, t_count=2, t_last=2, n_tiles=4, scales=1, **p) for p in (A8W4, {})],
    ),
    "groups of several entries, the last one shorter": (
        SMALL, [dict(PLANES, cw=25, n_tiles=3, scales=1, **p) for p in (A8W4, A4W4, {})],
    ),
    "one row group": (SMALL, [dict(PLANES, cw=12, n_tiles=8)] * 4),
    "one row group A8W4": (SMALL, [dict(PLANES, cw=13, n_tiles=6, **A8W4)] * 3),
    "one row group A4W4": (SMALL, [dict(PLANES, cw=24, n_tiles=6, **A4W4)] * 3),
}  # fmt: skip


def run_commands(machine, fields):
    """Runs 3x3 convolutions, or what `fields` make of them, from a full ring; returns the bench."""
    rng = np.random.default_rng(7)
    commands = [defaults() | CONV | {"replay": 1} | f for f in fields]
    memory = random_memory(rng, machine)
    entries = [e for cmd in commands for e in resident_ring(rng, machine, cmd, 1)]
    ring = [e for e, _ in entries]
    expected = [tile for cmd in commands for tile in tiles(cmd, machine, memory, ring)]
    bench = Surroundings(machine, memory, commands, entries, len(expected)).run()
    assert all((got == want).all() for got, want in zip(bench.tiles, expected, strict=True))
    phases = [
        phase_count(cmd, machine) * entry_count(cmd, machine) * cmd["n_tiles"]
        * ((cmd["m_tiles"] - 1) * cmd["t_count"] + cmd["t_last"])
        for cmd in commands
    ]  # fmt: skip
    assert sum(bench.active) == sum(phases)
    return bench


def cycles(bench):
    """From the first phase to the last."""
    last = len(bench.active) - bench.active[::-1].index(1)
    return last - bench.active.index(1)


@pytest.mark.parametrize("name", PACE)
def test_array_is_busy_every_cycle(name):
    """No gap between entries, row groups, tiles, n tiles and commands, whatever their precisions."""
    bench = run_commands(*PACE[name])
    print(f"{name}: {sum(bench.active)} phases, first after {bench.active.index(1)} cycles")
    assert cycles(bench) == sum(bench.active)


CHANNELS = Machine(rows=4, cols=4, lanes=4, accs=8)
DEPTHWISE = dict(depthwise=1, in_h=9, in_w=9, out_w=8, m_count=32, t_count=4, t_last=4, m_tiles=2)


@pytest.mark.parametrize(
    "machine,fields,accesses",
    [
        (CHANNELS, DEPTHWISE, 2),
        (CHANNELS, DEPTHWISE | {"dil_x": 2}, 3),
        (CHANNELS, DEPTHWISE | {"stride_x": 2, "in_w": 16, "in_shift": 1, "kh": 2}, 3),
        (CHANNELS, DEPTHWISE | {"kw": 2}, 2),
        (Machine(rows=2, cols=8, lanes=4, accs=4), DEPTHWISE | {"m_count": 16}, 2),
        (Machine(rows=1, cols=4, lanes=4, accs=8), DEPTHWISE | {"m_count": 8}, 3),
    ],
    ids=["neighbours", "dilated", "stride 2", "even kernel", "one half", "one row"],
)
def test_depthwise_pace(machine, fields, accesses):
    """A kernel row takes the larger of H phases and its accesses: of kw = 3 two are enough for neighbours."""
    bench = run_commands(machine, [fields])
    kernel_rows = fields.get("kh", 3) * 8
    print(f"{kernel_rows} kernel rows in {cycles(bench)} cycles, first after {bench.active.index(1)}")
    assert cycles(bench) == (kernel_rows - 1) * max(accesses, machine.halves) + machine.halves


def test_depthwise_between_others():
    """Only the first kernel row of a depthwise command is waited for; nothing is lost after its last."""
    dense = TILES | {"n_tiles": 1}
    bench = run_commands(CHANNELS, [dense, DEPTHWISE | {"m_tiles": 1}, dense])
    gap = 2 + 1  # accesses of a kernel row, and the collector
    assert cycles(bench) == sum(bench.active) + gap


def run_failing(machine, cmd, entries):
    """Runs a harmless command, then `cmd`, and returns the error."""
    harmless = defaults() | {"tag": cmd["tag"]}
    memory = random_memory(np.random.default_rng(0), machine)
    return Surroundings(machine, memory, [harmless, cmd], entries[:1] + entries, 99).run().error


def test_range_error_names_command_and_word():
    machine = MACHINES[2]
    cmd = defaults() | CONV | {"in_base": 60, "t_count": 4, "t_last": 1, "m_tiles": 3, "replay": 1}
    assert run_failing(machine, cmd, resident_ring(np.random.default_rng(1), machine, cmd, 1)) == (Cause.RANGE, 1, 64)


def test_rules_between_fields_are_checked():
    machine = MACHINES[2]
    cmd = defaults() | CONV | {"scales": 1, "fold": 1}
    assert run_failing(machine, cmd, []) == (Cause.MALFORMED, 1, MAC["scales"].offset)


def test_tag_error_gives_the_tag_found():
    machine = MACHINES[2]
    cmd = defaults() | CONV | {"t_count": 4, "t_last": 1, "m_tiles": 3, "replay": 1, "tag": 5}
    entries = resident_ring(np.random.default_rng(1), machine, cmd, 1)
    entries[-1] = (entries[-1][0], 77)
    assert run_failing(machine, cmd, entries) == (Cause.RING_TAG, 1, 77)


@pytest.mark.parametrize("m_count", [1, 2])
def test_overflow_counts_only_output_pixels(m_count):
    """Row 0 sees zeros; row 1 sees padding whose groups overflow, or zeros when it is beyond the last pixel."""
    machine = Machine(rows=2, cols=1, lanes=8, accs=1, kc_words=1)
    groups = (1 << 31) // (255 * 32 * 255 * 15 + (127 * 32 * 255 << 7)) + 1
    cmd = defaults() | {"cw": 2 * groups, "in_plane": 0, "out_w": 2, "m_count": m_count, "pad_value": 255, "replay": 1}
    cmd |= A8W4 | {"scales": 1, "act_unsigned": 1, "weight_unsigned": 1}
    entry = Entry(np.full((1, 16), 255, np.uint8), np.array([[[255, 127]]], np.uint8))
    memory = Memory(np.zeros((2, 64, 16), np.uint8), np.full((2, 64), 3), np.array([[7]]))
    bench = Surroundings(machine, memory, [cmd], [(entry, 0)] * groups, 1).run()
    assert bench.error == ((Cause.OVERFLOW, 0, 0) if m_count == 2 else None)
