"""MAC against scalar loops on small shapes: kernels, strides, padding, dilation, groups, fold, interleave, ring use."""

import time
from typing import Any

import numpy as np
import pytest

from headrace.config import NpuConfig, Precision, machine
from headrace.isa import Cause
from headrace_sim.golden import GoldenMachine, SequenceError
from headrace_sim.golden.tiles import TileShape

from .loops import DATA, fields_of, run, run_ok
from .mac_loops import Memories, entry_count, mac_tiles

Case = dict[str, Any]
CASES: dict[str, Case] = {
    "matrix": {"in_h": 1, "in_w": 7, "out_w": 7, "m_count": 7, "cw": 2, "in_plane": 8, "n_tiles": 2},
    "kernel": {
        "in_h": 4, "in_w": 5, "out_w": 5, "m_count": 20, "kh": 3, "kw": 3, "pad_top": 1, "pad_left": 1,
        "pad_value": 0x83,
    },
    "stride": {
        "in_h": 5, "in_w": 7, "out_w": 4, "m_count": 8, "kh": 3, "kw": 2, "pad_left": 1, "stride_y": 2, "stride_x": 2,
        "in_shift": 1, "in_base": 3, "in_p0": 2,
    },
    "uneven": {
        "in_h": 6, "in_w": 4, "out_w": 2, "m_count": 4, "kh": 2, "kw": 1, "pad_top": -1, "stride_y": 3, "stride_x": 2,
    },
    "dilation": {
        "in_h": 5, "in_w": 6, "out_w": 4, "m_count": 11, "kh": 2, "kw": 3, "dil_y": 3, "dil_x": 2, "pad_left": 1,
        "pad_value": 5, "in_shift": 2,
    },
    "groups": {
        "in_h": 1, "in_w": 5, "out_w": 5, "m_count": 5, "cw": 2, "in_plane": 6, "n_tiles": 3, "group_tiles": 2,
        "group_planes": 1,
    },
    "fold": {
        "in_h": 4, "in_w": 5, "out_w": 5, "m_count": 20, "kh": 3, "kw": 3, "pad_top": 1, "pad_left": 1,
        "pad_value": 0x11, "fold": 1, "in_p0": 3, "in_c0": 7,
    },
    "low bits of c0": {"in_h": 1, "in_w": 7, "out_w": 7, "m_count": 7, "in_c0": 35, "in_plane": 8},
    "interleave": {"in_h": 1, "in_w": 40, "out_w": 40, "m_count": 31, "in_shift": 1, "ilv": 1},
}  # fmt: skip


def complete(config: NpuConfig, case: Case) -> Case:
    """Tile loops that cover m_count, with a short last tile."""
    step = 1 << case.get("ilv", 0)
    t_count = max(step, config.accs // 2 // step * step)
    groups = -(-case["m_count"] // (config.rows * step)) * step
    m_tiles = -(-groups // t_count)
    return {**case, "t_count": t_count, "m_tiles": m_tiles, "t_last": groups - (m_tiles - 1) * t_count, "tag": 3}


def machine_with(config: NpuConfig, entries: int, seed: int = 1) -> tuple[GoldenMachine, list[np.ndarray]]:
    """Random scratchpad, and `entries` random weight entries in DDR at DATA."""
    rng = np.random.default_rng(seed)
    m = GoldenMachine(config, ddr_bytes=1 << 20)
    m.scratchpad.data[:] = rng.integers(0, 256, m.scratchpad.data.shape, np.uint8)
    codes = rng.integers(-128, 128, (entries, config.cols, config.word_bytes), np.int8)
    pitch = config.entry_beats * config.axi_bytes
    for i, entry in enumerate(codes):
        m.write_ddr(DATA + i * pitch, entry)
    return m, list(codes)


def drained(m: GoldenMachine) -> list[np.ndarray]:
    return [m.accumulators[i] for i in range(len(m.accumulators))]


def compare(config: NpuConfig, m: GoldenMachine, f: dict[str, int], codes: list[np.ndarray]) -> None:
    expected = mac_tiles(config, Memories(m.scratchpad.data, [(entry, None) for entry in codes]), f)
    tiles = drained(m)
    assert len(tiles) == len(expected)
    for tile, want in zip(tiles, expected):
        np.testing.assert_array_equal(tile, want)


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", Precision)
def test_shapes(name: str, case: str, mode: Precision) -> None:
    config = machine(name)
    fields = complete(config, CASES[case]) | {"replay": 1, "mode": mode}
    if fields["t_count"] > config.accs:
        pytest.skip("interleave needs more accumulators")
    f = fields_of("MAC", **fields)
    entries = f["n_tiles"] * entry_count(config, f)
    m, codes = machine_with(config, entries)
    run_ok(m, ("WEIGHT", {"ddr": DATA, "entries": entries, "tag": 3}), ("MAC", fields))
    assert len(m.ring) == 0
    compare(config, m, f, codes)


def test_words_of_sixteen_bytes_fold_four_columns() -> None:
    config = machine("base")
    fields = complete(config, CASES["fold"]) | {"replay": 1}
    m, codes = machine_with(config, 3)
    run_ok(m, ("WEIGHT", {"ddr": DATA, "entries": 3, "tag": 3}), ("MAC", fields))
    compare(config, m, fields_of("MAC", **fields), codes)


def test_without_replay_every_tile_has_its_entries() -> None:
    config = machine("odd")
    fields = complete(config, CASES["matrix"])
    f = fields_of("MAC", **fields)
    entries = f["n_tiles"] * f["m_tiles"] * entry_count(config, f)
    m, codes = machine_with(config, entries)
    run_ok(m, ("WEIGHT", {"ddr": DATA, "entries": entries, "tag": 3}), ("MAC", fields))
    compare(config, m, f, codes)


def test_hold_keeps_entries_for_the_next_command() -> None:
    config = machine("tiny")
    fields = complete(config, CASES["matrix"])
    f = fields_of("MAC", **fields)
    entries = f["n_tiles"] * entry_count(config, f)
    m, codes = machine_with(config, entries + 1)
    run_ok(
        m,
        ("WEIGHT", {"ddr": DATA, "entries": entries, "tag": 3}),
        ("WEIGHT", {"ddr": DATA, "entries": 1, "tag": 4}),
        ("MAC", {**fields, "hold": 1}),
        ("MAC", {**fields, "replay": 1}),
    )
    tiles = drained(m)
    half = len(tiles) // 2
    for first, second in zip(tiles[:half], tiles[half:]):
        np.testing.assert_array_equal(first, second)
    m.accumulators.take(TileShape.of(f, config))
    compare(config, m, f | {"hold": 1}, codes)
    assert len(m.ring) == 1


@pytest.mark.parametrize(
    ("change", "cause", "address"),
    [({"tag": 4}, Cause.RING_TAG, 3), ({"in_base": 1020, "in_h": 10}, Cause.RANGE, 1024), ({}, None, 0)],
)
def test_errors(change: Case, cause: Cause | None, address: int) -> None:
    config = machine("tiny")
    fields = {"in_h": 1, "in_w": 9, "out_w": 9, "m_count": 9, "t_count": 4, "t_last": 1, "m_tiles": 2, "tag": 3}
    m, _ = machine_with(config, 1)
    result = run(m, ("WEIGHT", {"ddr": DATA, "entries": 1, "tag": 3}), ("MAC", {**fields, "replay": 1, **change}))
    if cause is None:
        assert result.error is None
    else:
        assert result.error is not None
        assert (result.error.cause, result.error.address) == (cause, address)


def test_missing_entries_have_no_meaning() -> None:
    m, _ = machine_with(machine("tiny"), 1)
    with pytest.raises(SequenceError, match="command 0: MAC needs 1 weight entries"):
        run(m, ("MAC", {}))


def overflow_machine(signs: list[int]) -> tuple[GoldenMachine, dict[str, Any]]:
    """An input of -128 under one kernel row a sign: 2^21 of products each way on the way to the sum."""
    config = machine("tiny")
    rows, words = 255, 160  # 160 words of 4 bytes a kernel row: 2^14 * 640 a row
    m = GoldenMachine(config, ddr_bytes=1 << 22)
    m.scratchpad.data[:] = 0x80
    entry = config.entry_beats * config.axi_bytes
    weights = np.repeat(np.array([-128 if s < 0 else 127 for s in signs], np.int8), words * entry)
    m.write_ddr(DATA, weights)
    fields = {"in_h": len(signs), "in_w": 1, "kh": len(signs), "cw": words, "in_plane": 1, "replay": 1}
    assert len(signs) <= rows
    return m, fields


@pytest.mark.parametrize(
    ("signs", "overflows"),
    [([-1] * 210, True), ([-1] * 200, False), ([-1] * 210 + [1] * 45, True), ([-1] * 100 + [1] * 110, False)],
)
def test_overflow_is_that_of_a_running_sum(signs: list[int], overflows: bool) -> None:
    m, fields = overflow_machine(signs)
    words = len(signs) * fields["cw"]
    error = run(m, ("WEIGHT", {"ddr": DATA, "entries": words}), ("MAC", fields)).error
    assert (error is not None) == overflows
    if error is not None:
        assert (error.cause, error.index, error.address) == (Cause.OVERFLOW, 1, 0)


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """3x3, 64 to 64 channels on 56x56: 115.6 M multiplications; the time is printed, not judged."""
    config = machine("base")
    rng = np.random.default_rng(3)
    m = GoldenMachine(config, ddr_bytes=1 << 20)
    m.scratchpad.data[:] = rng.integers(0, 256, m.scratchpad.data.shape, np.uint8)
    shape = {"kh": 3, "kw": 3, "cw": 4, "pad_top": 1, "pad_left": 1, "in_h": 56, "in_w": 56, "in_plane": 784}
    tiles = {"out_w": 56, "m_count": 3136, "n_tiles": 8, "m_tiles": 49, "t_count": 16, "t_last": 16, "replay": 1}
    start = time.perf_counter()
    run_ok(
        m,
        ("WEIGHT", {"ddr": DATA, "entries": 288}),
        ("MAC", {**shape, **tiles}),
        (
            "EPILOGUE",
            {k: tiles[k] for k in ("m_count", "n_tiles", "m_tiles", "t_count", "t_last")} | {"out_plane": 784},
        ),
    )
    with capsys.disabled():
        seconds = time.perf_counter() - start
        print(f"\ngolden model: convolution of 115.6 MMAC and its epilogue in {seconds * 1000:.0f} ms")
