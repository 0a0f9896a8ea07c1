"""The MAC engine against the loop nest in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from .bench import Surroundings
from .reference import Machine, OutOfRange, entry_count, random_command, tiles

MACHINES = [
    Machine(rows=1, cols=3, lanes=4, accs=3, bank_words=256),
    Machine(rows=3, cols=1, lanes=2, accs=2, bank_words=128),
    Machine(rows=4, cols=2, lanes=8, accs=4),
    Machine(rows=2, cols=2, lanes=2, accs=1, bank_words=128),
]


def sequence(rng, machine, spad, count):
    """Commands that stay inside the scratchpad, their ring entries and tiles; some hold their entries for the next."""
    commands, entries, expected = [], [], []
    ring: list[np.ndarray] = []
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
        ring = [rng.integers(-128, 128, (machine.cols, machine.word_bytes)).astype(np.int8) for _ in range(needed)]
        fresh = [(e, cmd["tag"]) for e in ring]
        try:
            out = [tile for c in group for tile in tiles(c, machine, spad, ring)]
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
    spad = rng.integers(0, 256, (machine.rows, machine.bank_words, machine.word_bytes)).astype(np.uint8)
    commands, entries, expected = sequence(rng, machine, spad, 6)
    bench = Surroundings(
        machine, spad, commands, entries, len(expected), seed=seed, ring_pace=ring_pace, drain_pace=drain_pace
    ).run()
    print(f"seed {seed}, {len(bench.active)} cycles, {sum(bench.active)} active")
    assert bench.error is None
    for i, (got, want) in enumerate(zip(bench.tiles, expected)):
        assert got.shape == want.shape
        assert (got == want).all(), f"tile {i}"
