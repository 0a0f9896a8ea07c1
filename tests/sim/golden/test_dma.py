"""LOAD, STORE and WEIGHT against byte loops, and their errors."""

from typing import Any

import numpy as np
import pytest

from headrace.config import NpuConfig, machine
from headrace.isa import BY_NAME, Cause, Engine
from headrace_sim.golden import GoldenMachine, Window

from .loops import DATA, fields_of, place, run, run_ok, walk

WALKS: list[dict[str, Any]] = [
    {"n0": 1},
    {"n0": 37, "pix_bytes": 5, "base": 3, "plane": 9, "p0": 4, "c0": 3},
    {"n0": 11, "n1": 3, "n2": 2, "n3": 2, "s1": 13, "s2": -41, "s3": 100, "d1": 4, "d2": 13, "d3": 40, "pix_bytes": 3},
    {"n0": 24, "n1": 2, "s1": 24, "d1": 0, "pix_bytes": 24, "plane": 5, "shift": 1, "p0": 1},
    {"n0": 8, "n1": 4, "s1": -8, "d1": -2, "pix_bytes": 4, "shift": 2, "p0": 9, "base": 2},
]


def random_machine(config: NpuConfig, seed: int = 1) -> tuple[GoldenMachine, np.random.Generator]:
    """A machine with random bytes in its memories."""
    rng = np.random.default_rng(seed)
    m = GoldenMachine(config, ddr_bytes=1 << 18)
    m.ddr[:] = rng.integers(0, 256, len(m.ddr), np.uint8)
    m.scratchpad.data[:] = rng.integers(0, 256, m.scratchpad.data.shape, np.uint8)
    return m, rng


@pytest.mark.parametrize("name", ["tiny", "odd", "thin", "base"])
@pytest.mark.parametrize("fields", WALKS)
def test_load_and_store_are_byte_loops(name: str, fields: dict[str, Any]) -> None:
    config = machine(name)
    f = fields_of("LOAD", ddr=DATA + 77, **fields)
    m, _ = random_machine(config)
    spad, ddr = m.scratchpad.data.copy(), m.ddr.copy()
    for address, pixel, byte in walk(f):
        spad[place(config, f, "", pixel, byte)] = ddr[address]
    run_ok(m, ("LOAD", {"ddr": DATA + 77, **fields}))
    np.testing.assert_array_equal(m.scratchpad.data, spad)

    m, _ = random_machine(config, seed=2)
    ddr = m.ddr.copy()
    for address, pixel, byte in walk(f):
        ddr[address] = m.scratchpad.data[place(config, f, "", pixel, byte)]
    run_ok(m, ("STORE", {"ddr": DATA + 77, **fields}))
    np.testing.assert_array_equal(m.ddr[DATA - 4096 :], ddr[DATA - 4096 :])


def test_fill_touches_no_ddr() -> None:
    config = machine("tiny")
    m, _ = random_machine(config)
    spad = m.scratchpad.data.copy()
    fields = {"n0": 9, "n1": 2, "d1": 5, "pix_bytes": 3, "fill": 1, "fill_value": 0xA5, "ddr": 0xFF_0000_0000}
    f = fields_of("LOAD", **fields)
    for _, pixel, byte in walk(f):
        spad[place(config, f, "", pixel, byte)] = 0xA5
    run_ok(m, ("LOAD", fields))
    np.testing.assert_array_equal(m.scratchpad.data, spad)


def test_columns_and_contexts_are_flat_elements() -> None:
    config = machine("odd")
    m, rng = random_machine(config)
    data = rng.integers(0, 1 << 32, 12, np.uint32)
    m.write_ddr(DATA, data)
    walk3 = {"ddr": DATA, "n0": 16, "n1": 3, "s1": 16, "d1": 9}
    run_ok(m, ("LOAD", {**walk3, "dest": 1, "element": 520}), ("LOAD", {**walk3, "dest": 2, "element": 2}))
    memory, contexts = np.zeros(m.dataflow.memory.size, np.uint32), np.zeros(m.dataflow.contexts.size, np.uint32)
    for segment in range(3):
        for j in range(4):
            memory[520 + 9 * segment + j] = contexts[2 + 9 * segment + j] = data[4 * segment + j]
    np.testing.assert_array_equal(m.dataflow.memory.reshape(-1).view(np.uint32), memory)
    np.testing.assert_array_equal(m.dataflow.contexts.reshape(-1), contexts)
    column, word, lane = 1, 5, 1
    assert m.dataflow.memory[column, word, lane].view(np.uint32) == memory[(column * 256 + word) * 2 + lane]


@pytest.mark.parametrize("name", ["tiny", "odd", "base", "m2"])
@pytest.mark.parametrize("scales", [0, 1])
def test_weight_entries_are_padded_to_beats_and_repeated(name: str, scales: int) -> None:
    config = machine(name)
    m, _ = random_machine(config)
    run_ok(m, ("WEIGHT", {"ddr": DATA, "entries": 3, "repeat": 2, "tag": 9, "scales": scales}))
    assert len(m.ring) == 6
    entries = m.ring.take(6, 9, hold=False)
    code_bytes = config.entry_beats * config.axi_bytes
    for i in range(6):
        at = DATA + i % 3 * (code_bytes + scales * config.scale_beats * config.axi_bytes)
        expected = m.ddr[at : at + config.cols * config.word_bytes].reshape(config.cols, config.word_bytes)
        np.testing.assert_array_equal(entries.codes[i], expected)
        for c in range(config.cols):
            for g in range(config.entry_groups):
                pair = at + code_bytes + 2 * (c * config.entry_groups + g)
                want = m.ddr[pair : pair + 2].tolist() if scales else [0, 0]
                assert entries.scales[i, c, g].tolist() == want


@pytest.mark.parametrize(
    ("command", "cause", "address"),
    [
        (("LOAD", {"ddr": 0x20FF8, "n0": 16}), Cause.WINDOW, 0x21000),
        (("LOAD", {"ddr": 0x20000, "n0": 4, "n1": 3, "s1": 0x1000}), Cause.WINDOW, 0x21000),
        (("STORE", {"ddr": 0x20000, "n0": 4}), Cause.WINDOW, 0x20000),
        (("STORE", {"ddr": 0x22FFC, "n0": 8}), Cause.WINDOW, 0x23000),
        (("WEIGHT", {"ddr": 0x20F00, "entries": 100}), Cause.WINDOW, 0x21000),
        (("WEIGHT", {"ddr": 0x20002, "entries": 1}), Cause.ALIGN, 0x20002),
        (("LOAD", {"ddr": 0x20002, "n0": 4, "dest": 1}), Cause.ALIGN, 0x20002),
        (("LOAD", {"ddr": 0x20000, "n0": 6, "dest": 2}), Cause.ALIGN, 0x20000),
        (("LOAD", {"ddr": 0x20000, "n0": 8, "dest": 1, "element": 4 * 256 * 2 - 1}), Cause.RANGE, 4 * 256 * 2),
        (("LOAD", {"ddr": 0x20000, "n0": 8, "dest": 2, "element": 8 * 4 * 4 - 1}), Cause.RANGE, 8 * 4 * 4),
        (("LOAD", {"ddr": 0x20000, "n0": 8, "dest": 3, "element": 255}), Cause.RANGE, 256),
        (("LOAD", {"ddr": 0x20000, "n0": 6, "dest": 3}), Cause.ALIGN, 0x20000),
        (("LOAD", {"n0": 4, "dest": 3, "fill": 1}), Cause.MALFORMED, BY_NAME["LOAD"]["fill"].offset),
        (("WEIGHT", {"ddr": 0x20FF0, "entries": 2, "scales": 1}), Cause.WINDOW, 0x21000),
        (("LOAD", {"ddr": 0x20000, "n0": 4, "base": 1023, "p0": 1, "pix_bytes": 1}), Cause.RANGE, 1024),
        (("STORE", {"ddr": 0x22000, "n0": 5, "base": 1000, "plane": 24, "pix_bytes": 5}), Cause.RANGE, 1024),
        (("LOAD", {"ddr": 0x20FFF, "n0": 4, "base": 1023, "p0": 1, "pix_bytes": 4}), Cause.WINDOW, 0x21000),
    ],
)
def test_errors(command: tuple[str, dict[str, Any]], cause: Cause, address: int) -> None:
    m, _ = random_machine(machine("tiny"))
    m.windows = [Window(0, 1), Window(0x20, 0x21, write=False), Window(0x22, 0x23, read=False)]
    error = run(m, ("LOAD", {"n0": 4, "fill": 1}), command).error
    assert error is not None
    assert (error.cause, error.index, error.address) == (cause, 1, address)
    assert error.engine == Engine[command[0]]


def test_a_segment_may_cross_from_window_to_window() -> None:
    m, _ = random_machine(machine("tiny"))
    m.windows = [Window(0, 1), Window(0x21, 0x22), Window(0x20, 0x21)]
    run_ok(m, ("LOAD", {"ddr": 0x20FF8, "n0": 16, "pix_bytes": 4}))


def test_windows_need_memory() -> None:
    m = GoldenMachine(machine("tiny"), ddr_base=0x4000_0000, ddr_bytes=1 << 16)
    with pytest.raises(ValueError, match="without memory"):
        m.windows = [Window(0, 1)]
    with pytest.raises(ValueError, match="the machine has 4"):
        m.windows = m.windows * 5
