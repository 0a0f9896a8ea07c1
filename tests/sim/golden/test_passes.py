"""EPILOGUE and VECTOR against loops over beats; the operator rules of quantised networks as contexts."""

from typing import Any

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import Cause, DataflowOp, Reduce, Source
from headrace_sim.golden import SequenceError

from .loops import DATA, Fields, run, run_ok
from .pass_loops import check_epilogue, check_vector, random_machine, set_contexts

Case = dict[str, Any]
Op = DataflowOp
CLAMP = {"lo": -128, "hi": 127}


MIXED = [
    [
        {"op": Op.IADD, "a": Source.X, "b": Source.MEM, "mem_index": 1, "mem_base": 3},
        {"op": Op.ISUB, "a": Source.X, "b": Source.Y, "dst": 1},
    ],
    [{"op": Op.IMAX, "a": Source.Y, "b": Source.IMM, "imm": 0xFFFF0000}, {"op": Op.ISHR, "b": Source.MEM, "sh": 24}],
]
UNNAMED = [[{"op": 25, "a": Source.Y}, {"op": 32 + Op.IADD, "b": Source.X}], [{"op": 63, "a": Source.Y, "dst": 1}]]
ADD_MEAN = [
    [{"op": Op.IADD, "a": Source.X, "b": Source.Y, "reduce": Reduce.SUM, "repeat": 3}, {"op": Op.PASS, "a": Source.Y}]
]
ACROSS = [{"reduce": Reduce.SUM, "across": 1, "repeat": 3}]
PAIRS = [{"op": Op.IADD, "b": Source.MEM, "mem_index": 1, "reduce": Reduce.MIN, "repeat": 2}, {"reduce": Reduce.MAX}]
TWO_REDUCTIONS = [
    [
        {"reduce": Reduce.MAX, "repeat": 2, "dst": 1},
        {"op": Op.PASS, "a": Source.Y, "reduce": Reduce.MIN, "repeat": 3},
    ]
]

EPILOGUES: dict[str, Case] = {
    "plain": {},
    "wrap, residual": {"ctx": 1, "wraps": 1, "res_enable": 1, "res_base": 200, "res_plane": 20, "res_c0": 3},
    "wide output": {"out_type": 1, "out_c0": 2, "out_shift": 1, "res_enable": 1, "res_type": 1, "res_base": 200},
    "few channels": {"channels": 4, "idx_base": 5, "ctx": 1, "out_p0": 3, "zp": -100, "lo": -120, "hi": 30},
    "reduction": {"ctx": 3, "wraps": 1, "out_type": 1},
    "one residual a pixel": {"res_enable": 1, "res_row": 1, "res_type": 1, "res_base": 200, "res_plane": 20},
    "rows beyond the last pixel, across": {"ctx": 4, "m_count": 1, "out_type": 1, "out_plane": 60},
    "interleaved": {"ilv": 1, "res_enable": 1, "res_base": 200, "res_shift": 1},
}


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
@pytest.mark.parametrize("case", EPILOGUES)
def test_epilogue_is_a_loop_over_beats(name: str, case: str) -> None:
    config = machine(name)
    m = random_machine(config)
    contexts = [[{}] * config.columns, *set_contexts(m, [*MIXED, PAIRS, ACROSS], first=1)]
    tile = {"n_tiles": 2, "m_tiles": 2, "m_count": config.rows * 3, "t_count": 2, "t_last": 2}
    tile["ilv"] = EPILOGUES[case].get("ilv", 0)
    mac = {**tile, "in_w": 64, "out_w": 64, "in_base": 100, "replay": 1}
    fields = {**tile, "out_base": 400, "out_plane": 30, "zp": 4, **CLAMP, **EPILOGUES[case]}
    first = fields.get("ctx", 0)
    check_epilogue(m, contexts[first : first + fields.get("wraps", 0) + 1], mac, fields)


VECTORS: dict[str, tuple[list[list[Fields]], Case]] = {
    "mixed": (MIXED, {"n0": 3, "n1": 5, "x_dc0": 4, "x_dp1": 1, "m0": 3, "m1": 5, "o_dc0": 4, "o_dp1": 2}),
    "wrap": (
        MIXED,
        {
            "n0": 2, "n1": 3, "n2": 2, "x_dc0": 3, "x_dp1": 2, "x_dp2": -1, "x_p0": 1, "y_enable": 1, "y_type": 1,
            "y_dc0": 12, "y_dp1": 1, "m0": 4, "m1": 3, "o_dp0": 1, "o_dp1": 4, "wraps": 1, "channels": 3, "o_type": 1,
            "o_shift": 1,
        },
    ),
    "sum": (
        ADD_MEAN,
        {"n0": 3, "n1": 2, "n2": 2, "x_dp0": 1, "x_dp1": 3, "x_dc2": 2, "y_enable": 1, "y_shift": 2, "y_dp0": 2,
         "y_p0": 5, "idx_loop": 2, "channels": 3, "m0": 2, "m1": 2, "o_dc0": 4, "o_dp1": 1, "o_c0": 1},
    ),
    "reductions": (TWO_REDUCTIONS, {"n0": 6, "n1": 4, "x_dp0": 1, "x_dp1": 2, "idx_loop": 1, "m0": 4, "o_dp0": 1}),
    "unnamed codes": (UNNAMED, {"n0": 3, "x_dp0": 1, "y_enable": 1, "y_dp0": 2, "m0": 3, "o_dp0": 1, "wraps": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
@pytest.mark.parametrize("case", VECTORS)
def test_vector_is_a_loop_over_beats(name: str, case: str) -> None:
    m = random_machine(machine(name))
    contexts, given = VECTORS[case]
    full = set_contexts(m, contexts, first=2)
    views = {"x_plane": 40, "y_base": 200, "y_plane": 40, "o_base": 300, "o_plane": 50, "ctx": 2, "idx_base": 2}
    fields = {**views, "zp": -3, **CLAMP, **given}
    check_vector(m, full[: fields.get("wraps", 0) + 1], fields)


def test_residual_addition_rule() -> None:
    """TFLite: (a ma + b mb + 2^(sh-1)) >> sh on zero-point-corrected codes, for every pair of codes."""
    config = machine("base")
    m = random_machine(config)
    za, zb, zo, ma, mb, sh = -5, 17, 3, 1_234_567, 777_777, 21
    set_contexts(
        m,
        [
            [
                {"op": Op.ISUB, "a": Source.X, "b": Source.IMM, "imm": za},
                {"op": Op.IMUL, "a": Source.X, "b": Source.IMM, "imm": ma},
                {"op": Op.ISUB, "a": Source.Y, "b": Source.IMM, "imm": zb, "dst": 1},
                {"op": Op.IMUL, "a": Source.Y, "b": Source.IMM, "imm": mb, "dst": 1},
                {"op": Op.IADD, "a": Source.X, "b": Source.Y},
                {"op": Op.ISHR, "a": Source.X, "b": Source.IMM, "imm": 1 << (sh - 1), "sh": sh},
            ]
        ],
    )
    codes = np.arange(-128, 128)
    a, b = (v.reshape(-1).astype(np.int8) for v in np.meshgrid(codes, codes, indexing="ij"))
    words = a.size // config.word_bytes
    view = {"plane": words // config.rows}
    m.scratchpad.data[:, : words // 4] = a.reshape(-1, config.rows, 16).transpose(1, 0, 2).view(np.uint8)
    m.scratchpad.data[:, words // 4 : words // 2] = b.reshape(-1, config.rows, 16).transpose(1, 0, 2).view(np.uint8)
    walk = {f"{v}_d{k}{i}": s for v in "xyo" for k, i, s in (("c", 0, 8), ("p", 1, 1))}
    loops = {"n0": 2, "n1": words, "m0": 2, "m1": words, "y_enable": 1, "y_base": words // 4, "o_base": words // 2}
    run_ok(m, ("VECTOR", {**walk, **loops, "zp": zo, **CLAMP, "x_plane": view["plane"]}))
    got = m.scratchpad.data[:, words // 2 : 3 * words // 4].transpose(1, 0, 2).reshape(-1).view(np.int8)
    exact = ((a.astype(np.int64) - za) * ma + (b.astype(np.int64) - zb) * mb + (1 << (sh - 1))) >> sh
    np.testing.assert_array_equal(got, np.clip(exact + zo, -128, 127))


def test_average_pool_rule() -> None:
    """TFLite: sum of the codes, divided with halves away from zero, by multiplication with a reciprocal."""
    config = machine("tiny")
    m = random_machine(config)
    count, sh = 8, 20
    reciprocal = -(-(1 << sh) // count)
    set_contexts(
        m,
        [
            [
                {"reduce": Reduce.SUM, "repeat": count},
                {"op": Op.IDIVR, "a": Source.X, "b": Source.IMM, "imm": reciprocal, "sh": sh},
            ]
        ],
    )
    codes = np.array([[v // count + (i < v % count) for i in range(count)] for v in range(-1024, 1017)], np.int64)
    values = np.clip(codes, -128, 127).astype(np.int8)[-32 - 1000 : -1000]  # sums -8 .. 23
    for pixel, pair in enumerate(values.reshape(-1, 2, count).transpose(0, 2, 1).reshape(-1, 2)):
        m.scratchpad.data[pixel % 2, pixel // 2, :2] = pair.view(np.uint8)
    loops = {"n0": count, "n1": 16, "idx_loop": 1, "x_dp0": 1, "x_dp1": count, "m0": 16, "o_dp0": 1, "o_base": 500}
    run_ok(m, ("VECTOR", {**loops, **CLAMP}))
    got = np.array([m.scratchpad.data[p % 2, 500 + p // 2, :2] for p in range(16)]).reshape(-1).view(np.int8)
    sums = values.astype(int).sum(axis=1)
    np.testing.assert_array_equal(got, np.sign(sums) * ((2 * abs(sums) + count) // (2 * count)))
    assert (sums % count == count // 2).any()


MATRIX = {"m_count": 4, "t_count": 2, "t_last": 2}


@pytest.mark.parametrize(
    ("command", "cause", "address"),
    [
        (("EPILOGUE", {**MATRIX, "t_last": 1}), Cause.TILE, 2),
        (("EPILOGUE", {**MATRIX, "out_base": 1023, "out_p0": 1}), Cause.RANGE, 1024),
        (("EPILOGUE", {**MATRIX, "ctx": 7, "wraps": 1}), Cause.RANGE, 8),
        (("EPILOGUE", {**MATRIX, "ctx": 1, "idx_base": 251}), Cause.RANGE, 256),
        (("VECTOR", {"n0": 65, "m0": 65, "ctx": 1, "wraps": 1}), Cause.RANGE, 64),
        (("VECTOR", {"n0": 2, "m0": 2, "x_dc0": 4, "x_plane": 1023, "x_base": 1}), Cause.RANGE, 1024),
    ],
)
def test_errors(command: tuple[str, Case], cause: Cause, address: int) -> None:
    m = random_machine(machine("tiny"))
    set_contexts(m, [[{"op": Op.IADD, "b": Source.MEM, "mem_index": 1, "mem_base": 5}]], first=1)
    result = run(m, ("WEIGHT", {"ddr": DATA, "entries": 1}), ("MAC", {**MATRIX, "in_w": 4, "out_w": 4}), command)
    assert result.error is not None
    assert (result.error.cause, result.error.index, result.error.address) == (cause, 2, address)


def test_emitted_and_placed_beats_must_agree() -> None:
    m = random_machine(machine("tiny"))
    set_contexts(m, [[{"reduce": Reduce.SUM, "repeat": 2}]])
    with pytest.raises(SequenceError, match="emits 1 beats, its output loops place 2"):
        run(m, ("VECTOR", {"n0": 3, "m0": 2}))
    with pytest.raises(SequenceError, match="more accumulator tiles"):
        run(m, ("EPILOGUE", {}))


@pytest.mark.parametrize("name", ["tiny", "odd", "base", "thin"])
@pytest.mark.parametrize("idx_loop", [0, 1, 2])
@pytest.mark.parametrize("kind", [Reduce.FSUM, Reduce.FMAX, Reduce.FMIN, Reduce.MAX, Reduce.SUM])
def test_rows(name: str, idx_loop: int, kind: Reduce) -> None:
    """A reduction of rows, of any patterns, after and before operations; `thin` has no column that sums."""
    config = machine(name)
    m = random_machine(config, seed=idx_loop)
    column = config.sum_column or 0
    context: list[Fields] = [{} for _ in range(config.columns)]
    context[column] = {"op": Op.FADD, "b": Source.IMM, "imm": 0x3F000000, "reduce": kind, "row": 1, "repeat": 9}
    context[column]["across"] = idx_loop % 2
    contexts = set_contexts(m, [context])
    counts = (3, 4, 2)
    reduces = kind != Reduce.FSUM or config.float_sum
    emitted = int(np.prod(counts[idx_loop + 1 :])) if reduces else int(np.prod(counts))
    size = 4 * config.vector_lanes
    loops = {"n0": 3, "n1": 4, "n2": 2, "x_dc0": size, "x_dp1": 1, "x_dp2": 4, "idx_loop": idx_loop}
    out = {"m0": emitted, "o_dp0": 1, "o_base": 160, "o_plane": 40, "o_type": 1}
    view = {"x_type": 1, "x_plane": 20, "channels": counts[idx_loop] * config.vector_lanes - 1}
    check_vector(m, contexts, {**loops, **out, **view})


@pytest.mark.parametrize("idx_loop", [0, 1, 3])
def test_numbers_of_elements(idx_loop: int) -> None:
    """Operand IDX, and an index that steps from row to row."""
    config = machine("tiny")
    m = random_machine(config)
    contexts = set_contexts(m, [[{"op": Op.IADD, "b": Source.IDX}, {"a": 5, "reduce": 7}]])
    loops = {"n0": 3, "n1": 4, "n2": 2, "x_dc0": 2, "x_dp1": 1, "x_dp2": 4, "idx_loop": idx_loop, "idx_step": 4000}
    out = {"m0": 3, "m1": 8, "o_dc0": 8, "o_dp1": 1, "o_base": 160, "o_plane": 40, "o_type": 1}
    check_vector(m, contexts, {**loops, **out, "idx_base": 65000, "x_plane": 20})


@pytest.mark.parametrize("bits", [0, 1, 4, 16])
@pytest.mark.parametrize("y_type", [0, 1, 2, 4])
def test_gathered_pixels(bits: int, y_type: int) -> None:
    """Lane 0 of y, negative ones too, moves the pixel of x; bytes 0..255 do for 16 bits."""
    config = machine("tiny")
    m = random_machine(config)
    contexts = set_contexts(m, [[{"op": Op.IADD, "b": Source.Y}]])
    loops = {"n0": 3, "n1": 7, "x_dc0": 2, "x_dp1": 1, "x_plane": 150, "channels": 5, "x_gather": bits}
    y = {"y_enable": 1, "y_type": y_type if bits < 16 else 2, "y_dc0": 8, "y_dp1": 1, "y_plane": 11, "y_base": 3}
    out = {"m0": 3, "m1": 7, "o_dc0": 8, "o_dp1": 1, "o_base": 600, "o_plane": 8, "o_type": 1}
    check_vector(m, contexts, {**loops, **y, **out})
