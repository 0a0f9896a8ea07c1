"""The MAC engine against the loop nest in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.isa import Cause

from .bench import Surroundings
from .reference import (
    Entry, Machine, Memory, OutOfRange, defaults, entry_count, phase_count, random_command, random_entry, random_memory,
    tiles,
)  # fmt: skip

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
@pytest.mark.parametrize("ring_pace,drain_pace", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.05)])
def test_random_commands(machine, ring_pace, drain_pace):
    seed = int(1000 * ring_pace + 10 * drain_pace) + machine.lanes
    rng = np.random.default_rng(seed)
    memory = random_memory(rng, machine)
    commands, entries, expected = sequence(rng, machine, memory, 6)
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


PACE = {
    "3x3": (Machine(rows=4, cols=2, lanes=8, accs=4), dict(in_shift=0, t_count=4, t_last=4, m_tiles=3, n_tiles=2), 2),
    "3x3 stride 2": (
        Machine(rows=4, cols=2, lanes=8, accs=4, bank_words=128),
        dict(in_shift=1, in_h=12, in_w=12, stride_y=2, stride_x=2, t_count=4, t_last=4, m_tiles=3, n_tiles=2), 2,
    ),
    "3x3 stride 1 of a tensor with s = 2": (
        Machine(rows=4, cols=2, lanes=8, accs=4),
        dict(in_shift=1, ilv=1, t_count=4, t_last=4, m_tiles=3, n_tiles=1, in_w=8, in_h=6, out_w=8, m_count=48), 3,
    ),
    "fold": (
        Machine(rows=4, cols=2, lanes=8, accs=4),
        dict(fold=1, kh=3, kw=7, in_w=12, in_h=6, out_w=12, m_count=48, t_count=4, t_last=4, m_tiles=3, n_tiles=1), 3,
    ),
    "one row group": (
        Machine(rows=1, cols=2, lanes=2, accs=1, bank_words=64),
        dict(in_h=1, in_w=1, out_w=1, m_count=1, kh=1, kw=1, cw=12, pad_top=0, pad_left=0, n_tiles=8, in_plane=1), 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PACE)
def test_array_is_busy_every_cycle(name):
    """No gap between entries, row groups, tiles, n tiles and commands."""
    machine, fields, repeat = PACE[name]
    rng = np.random.default_rng(7)
    cmd = defaults() | CONV | {"replay": 1} | fields
    memory = random_memory(rng, machine)
    entries = resident_ring(rng, machine, cmd, repeat)
    ring = [e for e, _ in entries]
    expected = [tile for _ in range(repeat) for tile in tiles(cmd, machine, memory, ring)]
    bench = Surroundings(machine, memory, [cmd] * repeat, entries, len(expected)).run()
    assert all((got == want).all() for got, want in zip(bench.tiles, expected))
    phases = phase_count(cmd, machine) * repeat * entry_count(cmd, machine) * cmd["n_tiles"]
    phases *= (cmd["m_tiles"] - 1) * cmd["t_count"] + cmd["t_last"]
    first, last = bench.active.index(1), len(bench.active) - 1 - bench.active[::-1].index(1)
    print(f"{name}: {sum(bench.active)} phases in {last - first + 1} cycles, first after {first}")
    assert sum(bench.active) == phases
    assert last - first + 1 == phases


def run_failing(machine, cmd, entries):
    """Runs a harmless command, then `cmd`, and returns the error."""
    harmless = defaults() | {"tag": cmd["tag"]}
    memory = random_memory(np.random.default_rng(0), machine)
    return Surroundings(machine, memory, [harmless, cmd], entries[:1] + entries, 99).run().error


def test_range_error_names_command_and_word():
    machine = MACHINES[2]
    cmd = defaults() | CONV | {"in_base": 60, "t_count": 4, "t_last": 1, "m_tiles": 3, "replay": 1}
    assert run_failing(machine, cmd, resident_ring(np.random.default_rng(1), machine, cmd, 1)) == (Cause.RANGE, 1, 64)


def test_tag_error_gives_the_tag_found():
    machine = MACHINES[2]
    cmd = defaults() | CONV | {"t_count": 4, "t_last": 1, "m_tiles": 3, "replay": 1, "tag": 5}
    entries = resident_ring(np.random.default_rng(1), machine, cmd, 1)
    entries[-1] = (entries[-1][0], 77)
    assert run_failing(machine, cmd, entries) == (Cause.RING_TAG, 1, 77)


@pytest.mark.parametrize("m_count", [pytest.param(1, marks=pytest.mark.regress), 2])
def test_overflow_counts_only_output_pixels(m_count):
    """Row 0 sees zeros; row 1 sees padding whose products overflow, or zeros when it is beyond the last pixel."""
    machine = Machine(rows=2, cols=1, lanes=64, accs=1)
    steps = (1 << 31) // (2 * 64 << 14) + 1
    cmd = defaults() | {"cw": steps, "in_plane": 0, "out_w": 2, "m_count": m_count, "pad_value": 128, "replay": 1}
    entries = [(Entry(np.full((1, 128), 128, np.uint8), np.zeros((1, machine.groups, 2), np.uint8)), 0)] * steps
    memory = Memory(np.zeros((2, 64, 128), np.uint8), np.zeros((2, 64), int), np.zeros((machine.kc_words, 1), int))
    bench = Surroundings(machine, memory, [cmd], entries, 1).run()
    assert bench.error == ((Cause.OVERFLOW, 0, 0) if m_count == 2 else None)
