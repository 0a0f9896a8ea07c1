"""MAC: unsigned codes, group scales, activation shifts, depthwise mode and the rules between fields, against loops."""

from typing import Any

import numpy as np
import pytest

from headrace.config import MACHINES, NpuConfig, Precision, machine
from headrace.isa import BY_NAME, Cause, Dest
from headrace_sim.golden import GoldenMachine

from .loops import DATA, fields_of, run, run_ok
from .mac_loops import Memories, entry_count, mac_tiles

Case = dict[str, Any]
SEED = 11
WEIGHTS = DATA + 0x4000
TINY = machine("tiny")
WIDE = NpuConfig(**TINY.to_dict() | {"name": "wide", "lanes": 16, "spad_bytes": 65536, "ring_bytes": 4096, "cols": 16,
                                     "axi_bits": 64, "gasket_beats": 128})  # fmt: skip
EIGHT = NpuConfig(**TINY.to_dict() | {"name": "eight", "lanes": 8, "spad_bytes": 32768, "ring_bytes": 2048})
CONFIGS = {c.name: c for c in (*MACHINES.values(), WIDE, EIGHT)}
SCALED = [(n, p) for n in ("tiny", "odd", "thin", "eight", "wide") for p in Precision if CONFIGS[n].scaled(p)]


def prepare(c: NpuConfig, f: dict[str, int], seed: int = SEED) -> tuple[GoldenMachine, Memories, tuple[str, Case]]:
    """A machine with random scratchpad, shifts and kc; the entries of a MAC command in DDR; its WEIGHT command."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    m = GoldenMachine(c, ddr_bytes=1 << 20)
    m.scratchpad.data[:] = rng.integers(0, 256, m.scratchpad.data.shape, np.uint8)
    m.scratchpad.ka[:] = rng.integers(0, 8, m.scratchpad.ka.shape, np.uint8)
    m.kc[:] = rng.integers(0, 1 << 32, m.kc.shape, np.uint32)
    count = f["n_tiles"] * entry_count(c, f) * (1 if f["replay"] or f["hold"] else f["m_tiles"])
    codes = rng.integers(0, 256, (count, c.cols, c.word_bytes), np.uint8)
    scales = rng.integers(0, 256, (count, c.cols, c.entry_groups, 2), np.uint8)
    code_bytes = c.entry_beats * c.axi_bytes
    pitch = code_bytes + c.scale_beats * c.axi_bytes * f["scales"]
    for i in range(count):
        m.write_ddr(WEIGHTS + i * pitch, codes[i])
        if f["scales"]:
            m.write_ddr(WEIGHTS + i * pitch + code_bytes, scales[i])
    memories = Memories(m.scratchpad.data, list(zip(codes, scales)), m.scratchpad.ka, m.kc)
    weight = {"ddr": WEIGHTS, "entries": count, "scales": f["scales"], "tag": f["tag"]}
    return m, memories, ("WEIGHT", weight)


def check(c: NpuConfig, fields: Case) -> None:
    f = fields_of("MAC", **fields)
    m, memories, weight = prepare(c, f)
    run_ok(m, weight, ("MAC", fields))
    expected = mac_tiles(c, memories, f)
    assert len(m.accumulators) == len(expected)
    for number, want in enumerate(expected):
        np.testing.assert_array_equal(m.accumulators[number], want)
    assert any(np.any(tile) for tile in expected)


ROW: Case = {"in_h": 1, "in_w": 5, "out_w": 5, "m_count": 5, "in_plane": 5, "in_base": 2}
CONV: Case = {
    "in_h": 3, "in_w": 4, "out_w": 4, "m_count": 12, "kh": 2, "kw": 3, "pad_left": 1, "pad_value": 0x9B, "in_plane": 12,
}  # fmt: skip


def tiles(c: NpuConfig, case: Case, t: int, n_tiles: int = 2) -> Case:
    groups = -(-case["m_count"] // c.rows)
    m_tiles = -(-groups // t)
    return {
        **case,
        "n_tiles": n_tiles,
        "t_count": t,
        "m_tiles": m_tiles,
        "t_last": groups - (m_tiles - 1) * t,
        "tag": 9,
    }


@pytest.mark.parametrize("mode", Precision)
@pytest.mark.parametrize("signs", [(0, 1), (1, 0), (1, 1)])
def test_unsigned_codes(mode: Precision, signs: tuple[int, int]) -> None:
    signed = {"act_unsigned": signs[0], "weight_unsigned": signs[1], "mode": mode, "replay": 1}
    check(machine("odd"), tiles(machine("odd"), CONV, 2) | signed)
    check(machine("odd"), tiles(machine("odd"), CONV, 2) | signed | {"fold": 1, "in_p0": 1})


@pytest.mark.parametrize(("name", "mode"), SCALED)
@pytest.mark.parametrize("words", [1, 2, 3, 8, 9])
def test_group_scales(name: str, mode: Precision, words: int) -> None:
    """Groups that span entries, that end with them, two an entry, and shorter last ones."""
    c = CONFIGS[name]
    shape = tiles(c, ROW, min(2, c.scaled_accs), 1) | {"in_p0": 1, "cw": words, "mode": mode, "scales": 1, "kc_base": 3}
    check(c, shape | {"replay": words % 2})


@pytest.mark.parametrize(("name", "mode"), SCALED)
@pytest.mark.parametrize("change", [{"act_unsigned": 1}, {"weight_unsigned": 1, "act_unsigned": 1}, {"cw": 2}])
def test_group_scales_of_a_convolution(name: str, mode: Precision, change: Case) -> None:
    """Padding enters psum and xsum, and its shift is 0; every n tile has its kc."""
    c = CONFIGS[name]
    check(
        c, tiles(c, CONV, min(2, c.scaled_accs), 3) | {"mode": mode, "scales": 1, "replay": 1, "kc_base": 250} | change
    )


def test_without_scales_in_the_entries_the_sums_are_zero() -> None:
    c = EIGHT
    fields = tiles(c, ROW, 2) | {"mode": 1, "cw": 2, "scales": 1, "replay": 1}
    m, _, weight = prepare(c, fields_of("MAC", **fields))
    run_ok(m, ("WEIGHT", weight[1] | {"scales": 0}), ("MAC", fields))
    assert not any(np.any(m.accumulators[i]) for i in range(len(m.accumulators)))


def test_activation_shifts_are_ignored_without_scales() -> None:
    c = EIGHT
    fields = tiles(c, ROW, 2) | {"mode": 1, "cw": 2, "replay": 1}
    check(c, fields)


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize(
    ("mode", "up", "down", "group"),
    [
        (Precision.A8W8, 0x7F, 0x81, 8 * 16 * 127 * 127),
        (Precision.A8W4, 0x77, 0x99, 255 * 32 * 127 * 7 + (127 * 32 * 127 << 7)),
    ],
)
def test_overflow_is_judged_after_each_group(mode: Precision, up: int, down: int, group: int, beyond: int) -> None:
    """As many equal groups up as fit int32, or one more, then down again: the final sum is 0."""
    c = EIGHT
    groups = ((1 << 31) - 1) // group + beyond
    m = GoldenMachine(c, ddr_bytes=1 << 20)
    m.scratchpad.data[:] = 127
    m.kc[:] = 0x77777777
    code_bytes = c.entry_beats * c.axi_bytes
    entry = np.zeros((2, groups, code_bytes + c.scale_beats * c.axi_bytes), np.uint8)
    entry[0, :, :code_bytes], entry[1, :, :code_bytes] = up, down
    entry[..., code_bytes::2] = 255  # sd
    entry[0, :, code_bytes + 1 :: 2], entry[1, :, code_bytes + 1 :: 2] = 127, 129  # sm
    m.write_ddr(DATA, entry)
    fields = {"cw": 2 * groups * mode.words, "mode": mode, "scales": 1}
    error = run(m, ("WEIGHT", {"ddr": DATA, "entries": 2 * groups, "scales": 1}), ("MAC", fields)).error
    if beyond:
        assert error is not None
        assert (error.cause, error.index, error.address) == (Cause.OVERFLOW, 1, 0)
    else:
        assert error is None
        assert not m.accumulators[0].any()


DEPTHWISE: dict[str, Case] = {
    "same": {"in_h": 4, "in_w": 5, "out_w": 5, "m_count": 20, "kh": 3, "kw": 2, "pad_top": 1, "pad_left": 1,
             "pad_value": 0x83, "in_plane": 30},
    "stride": {"in_h": 5, "in_w": 5, "out_w": 2, "m_count": 4, "kh": 3, "kw": 2, "stride_y": 2, "stride_x": 2,
               "dil_y": 1, "in_plane": 30, "in_shift": 1},
    "dilation": {"in_h": 5, "in_w": 6, "out_w": 4, "m_count": 11, "kh": 2, "kw": 2, "dil_y": 3, "dil_x": 2,
                 "in_plane": 40, "act_unsigned": 1, "in_p0": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "wide", "base"])
@pytest.mark.parametrize("case", DEPTHWISE)
@pytest.mark.parametrize("replay", [0, 1])
def test_depthwise(name: str, case: str, replay: int) -> None:
    c = CONFIGS[name]
    fields = tiles(c, DEPTHWISE[case], 2) | {"depthwise": 1, "replay": replay, "in_c0": c.word_bytes + 3}
    check(c, fields)


def test_machines_without_depthwise_refuse_the_field() -> None:
    error = run(GoldenMachine(EIGHT, ddr_bytes=1 << 16), ("MAC", {"depthwise": 1})).error
    assert error is not None
    assert (error.cause, error.address) == (Cause.MALFORMED, BY_NAME["MAC"]["depthwise"].offset)


DW: Case = {"depthwise": 1}
RULES: list[tuple[str, Case, str]] = [
    ("tiny", {"scales": 1, "fold": 1}, "scales"),
    ("tiny", {"scales": 1, "t_count": 2}, "scales"),
    ("tiny", {"scales": 1, "t_last": 2}, "scales"),
    ("wide", {"scales": 1, "mode": 2}, "scales"),
    ("tiny", {"scales": 1, "fold": 1, "kc_base": 4095, "mode": 1}, "scales"),
    ("tiny", DW | {"mode": 1, "fold": 1, "scales": 1, "cw": 2, "t_last": 3}, "scales"),
    ("tiny", DW | {"mode": 1, "fold": 1, "cw": 2, "group_tiles": 1, "kw": 3}, "mode"),
    ("tiny", DW | {"mode": 2, "scales": 1}, "mode"),
    ("tiny", DW | {"fold": 1, "cw": 2}, "fold"),
    ("tiny", DW | {"scales": 1, "cw": 2}, "scales"),
    ("tiny", DW | {"cw": 2, "group_tiles": 1}, "cw"),
    ("tiny", DW | {"group_tiles": 1, "kw": 3}, "group_tiles"),
    ("tiny", DW | {"kw": 3, "t_count": 3}, "kw"),
    ("tiny", DW | {"t_count": 3, "t_last": 3}, "t_count"),
    ("tiny", DW | {"t_last": 3}, "t_last"),
    ("base", DW | {"kw": 6}, "kw"),
    ("tiny", {"mode": 3}, "mode"),
]


@pytest.mark.parametrize(("name", "fields", "field"), RULES)
def test_rules_between_fields(name: str, fields: Case, field: str) -> None:
    error = run(GoldenMachine(CONFIGS[name], ddr_bytes=1 << 16), ("MAC", fields)).error
    assert error is not None
    assert (error.cause, error.index, error.address) == (Cause.MALFORMED, 0, BY_NAME["MAC"][field].offset)


@pytest.mark.parametrize(("mode", "cause"), [(0, None), (1, Cause.RANGE), (2, Cause.RANGE)])
def test_kc_base_must_be_inside_the_table(mode: int, cause: Cause | None) -> None:
    m = GoldenMachine(EIGHT, ddr_bytes=1 << 16)
    fields = {"mode": mode, "scales": 1, "n_tiles": 2, "kc_base": 255}
    error = run(m, ("WEIGHT", {"ddr": 0, "entries": 2}), ("MAC", fields)).error
    assert (None if error is None else (error.cause, error.address)) == (None if cause is None else (cause, 256))


@pytest.mark.parametrize("name", ["tiny", "base", "wide", "m2"])
def test_shift_table_is_flat_elements(name: str) -> None:
    c = CONFIGS[name]
    m = GoldenMachine(c, ddr_bytes=1 << 18)
    data = np.random.default_rng(SEED).integers(0, 1 << 32, 6, np.uint32)
    m.write_ddr(DATA, data)
    run_ok(m, ("LOAD", {"ddr": DATA, "n0": 8, "n1": 3, "s1": 8, "d1": 5, "dest": Dest.KC, "element": 2}))
    expected = np.zeros(c.kc_words * -(-c.cols // 8), np.uint32)
    for segment in range(3):
        expected[2 + 5 * segment : 4 + 5 * segment] = data[2 * segment : 2 * segment + 2]
    np.testing.assert_array_equal(m.kc.reshape(-1), expected)


@pytest.mark.parametrize(("mode", "address"), [(Precision.A8W8, 1024), (Precision.A8W4, 1026)])
def test_first_word_outside_in_the_order_of_the_machine(mode: Precision, address: int) -> None:
    """Entry, row group, word: row group 1 of word 0 is outside, and both of word 1, which may be of the same entry."""
    m = GoldenMachine(machine("tiny"), ddr_bytes=1 << 16)  # banks of 1,024 words, two rows
    fields = {"in_w": 4, "m_count": 4, "out_w": 4, "cw": 2, "in_base": 1023, "in_plane": 3, "t_count": 2, "t_last": 2}
    error = run(m, ("WEIGHT", {"ddr": 0, "entries": 2}), ("MAC", fields | {"mode": mode})).error
    assert error is not None
    assert (error.cause, error.address) == (Cause.RANGE, address)
