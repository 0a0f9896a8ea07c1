"""Element types of streams, activation shifts, merged lanes, tables in column memories, depthwise epilogues."""

from typing import Any

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import Cause, DataflowOp, DType, MemIndex, Reduce, Source
from headrace_sim.golden import GoldenMachine

from .loops import Fields, run, run_ok
from .pass_loops import check_epilogue, check_vector, random_machine, set_contexts

Op = DataflowOp
CLAMP = {"lo": -101, "hi": 90, "zp": -7}
SOURCES = [t for t in DType if t != DType.KA]
ROWS: dict[str, Any] = {
    "n0": 3, "n1": 4, "x_dp1": 1, "x_plane": 11, "y_enable": 1, "y_base": 100, "y_plane": 9, "y_dp1": 1,
    "m0": 3, "m1": 4, "o_dp1": 1, "o_base": 300, "o_plane": 13, "channels": 5,
}  # fmt: skip


def streams(lanes: int, **types: DType) -> dict[str, int]:
    """Types and steps of a beat in loop 0."""
    sizes = {DType.I16: 2, DType.BF16: 2, DType.B32: 4}
    out = {}
    for v, t in types.items():
        out |= {f"{v}_type": int(t), f"{v}_dc0": -(-lanes // 2) if t == DType.I4 else lanes * sizes.get(t, 1)}
    return out


@pytest.mark.parametrize("name", ["odd", "thin"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", DType)
def test_vector_types(name: str, source: DType, sink: DType) -> None:
    config = machine(name)
    for c0 in range(3):
        m = random_machine(config, seed=c0)
        contexts = set_contexts(m, [[{}, {"op": Op.PASS, "a": Source.X}]])
        types = streams(config.vector_lanes, x=source, y=source, o=sink)
        check_vector(m, contexts, ROWS | CLAMP | types | {"x_c0": c0, "o_c0": c0, "y_c0": 2})
        contexts = set_contexts(m, [[{"op": Op.PASS, "a": Source.Y}]])
        check_vector(m, contexts, ROWS | CLAMP | types | {"y_c0": c0, "o_c0": 1})


@pytest.mark.parametrize("name", ["odd", "thin"])
@pytest.mark.parametrize("residual", SOURCES)
@pytest.mark.parametrize(("sink", "c0"), [*((t, 1) for t in DType), (DType.I4, 0)])
def test_epilogue_types(name: str, residual: DType, sink: DType, c0: int) -> None:
    config = machine(name)
    m = random_machine(config)
    contexts = set_contexts(m, [[{"op": Op.IADD, "b": Source.Y}, {"op": Op.ISHR, "b": Source.IMM, "sh": 5}]])
    tile = {"n_tiles": 2, "m_count": config.rows * 2 - 1, "t_count": 2, "t_last": 2, "m_tiles": 1}
    mac = {**tile, "in_w": 64, "out_w": 64, "replay": 1}
    res = {"res_enable": 1, "res_type": residual, "res_base": 100, "res_plane": 20, "res_c0": 3 - c0}
    out = {"out_type": sink, "out_base": 300, "out_plane": 30, "out_c0": c0, "channels": 2 * config.cols - 1}
    check_epilogue(m, contexts, mac, tile | res | out | CLAMP)


PATTERNS = [0, 1, 0x007FFFFF, 0x00800000, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x7F7F7FFF, 0x7F7F8000,
            0x7F800000, 0x7F800001, 0x7FC12345, 0x7FFFFFFF, 0x00FFFFFF, 0x4B7FFFFF]  # fmt: skip


def test_bf16_sink_of_special_numbers() -> None:
    m = random_machine(machine("base"))
    values = np.array([v | s for v in PATTERNS for s in (0, 1 << 31)], np.uint32)
    m.scratchpad.data[0, :8] = values.view(np.uint8).reshape(8, 16)
    loops = {"n0": 4, "m0": 4, "x_type": DType.B32, "x_dc0": 32, "x_plane": 1, "o_type": DType.BF16, "o_dc0": 16}
    check_vector(m, set_contexts(m, [[{}]]), loops | {"o_plane": 1, "o_base": 100})
    stored = m.scratchpad.data[0, 100:104].reshape(-1).view(np.uint16)[::2].tolist()
    assert stored == [0, 0, 0, 0x80, 0x3F80, 0x3F82, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7F80, 0x7FC0, 0x7FC0, 0x7FC0,
                      0x0100, 0x4B80]  # fmt: skip


@pytest.mark.parametrize("sink", [DType.I8, DType.U8, DType.I4, DType.I16])
@pytest.mark.parametrize("zp", [-100, 100])
def test_sinks_add_exactly(sink: DType, zp: int) -> None:
    m = random_machine(machine("base"))
    values = np.array([-(2**31), 2**31 - 1, -(2**31) + 99, 2**31 - 100, -32869, 32868, 0, -1], np.int32)
    m.scratchpad.data[0, :2] = values.view(np.uint8).reshape(2, 16)
    types = {"x_type": DType.B32, "x_plane": 1, "o_type": sink, "o_base": 100, "o_plane": 1}
    check_vector(m, set_contexts(m, [[{}]]), types | CLAMP | {"zp": zp})


def test_every_write_sets_the_activation_shift() -> None:
    """LOAD, fill and the sinks clear it, the KA sink sets it and writes no byte; STORE leaves it."""
    m = GoldenMachine(machine("tiny"), ddr_bytes=1 << 16)
    m.scratchpad.ka[:] = 5
    m.scratchpad.data[:] = 0x7E
    run_ok(
        m,
        ("LOAD", {"ddr": 0, "n0": 1, "pix_bytes": 4, "base": 1}),
        ("LOAD", {"n0": 1, "pix_bytes": 4, "base": 2, "fill": 1, "fill_value": 3}),
        ("STORE", {"ddr": 0x8000, "n0": 4, "pix_bytes": 4, "base": 3}),
        ("VECTOR", {"o_base": 4, "o_c0": 3, "x_base": 9, "hi": 127}),
        ("VECTOR", {"o_base": 6, "o_c0": 3, "x_base": 9, "o_type": DType.KA, "o_plane": 1}),
    )
    assert m.scratchpad.ka[0, :9].tolist() == [5, 0, 0, 5, 0, 5, 6, 5, 5]
    assert m.scratchpad.data[0, 6:8].tolist() == [[0x7E] * 4] * 2


REDUCED = [
    {"op": Op.IADD, "b": Source.MEM, "mem_index": MemIndex.IDX, "mem_base": 7, "reduce": Reduce.SUM, "repeat": 3,
     "across": 1},
    {"op": Op.IMAX, "b": Source.Y, "across": 1},
]  # fmt: skip
ACROSS: dict[str, list[Fields]] = {
    "sum": REDUCED,
    "max": [{"reduce": Reduce.MAX, "across": 1, "repeat": 3}, {"op": Op.ISUB, "b": Source.Y}],
    "min of y": [{"a": Source.Y, "reduce": Reduce.MIN, "across": 1, "repeat": 3, "dst": 1}, {"a": Source.Y}],
    "single beats": [{"reduce": Reduce.MAX, "across": 1}, {"reduce": Reduce.SUM, "repeat": 3}],
    "merged lanes are valid": [{"reduce": Reduce.SUM, "across": 1}, {"reduce": Reduce.SUM, "across": 1, "repeat": 3}],
}


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
@pytest.mark.parametrize("case", ACROSS)
def test_reductions_across_lanes(name: str, case: str) -> None:
    config = machine(name)
    for types in ({}, {"x": DType.B32, "y": DType.B32}, {"o": DType.BF16, "x": DType.U8}):
        m = random_machine(config)
        contexts = set_contexts(m, [ACROSS[case][: config.columns]])
        check_vector(m, contexts, ROWS | CLAMP | streams(config.vector_lanes, **types) | {"m0": 1, "m1": 4})


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
def test_epilogue_reduces_across_lanes(name: str) -> None:
    """Rows at and beyond m_count are not written, all lanes of the others are."""
    config = machine(name)
    m = random_machine(config)
    contexts = set_contexts(m, [[{"reduce": Reduce.MAX, "across": 1, "repeat": config.acc_beats}]])
    tile = {"n_tiles": 2, "m_count": config.rows * 2 - 1, "t_count": 2, "t_last": 2, "m_tiles": 1}
    mac = {**tile, "in_w": 64, "out_w": 64, "replay": 1}
    out = {"out_type": DType.B32, "out_base": 300, "out_plane": 30, "channels": 2 * config.cols - 1}
    check_epilogue(m, contexts, mac, tile | out)


TABLES: list[list[Fields]] = [
    [{"a": Source.MEM, "mem_index": MemIndex.X}],
    [{"op": Op.IXOR, "a": Source.X, "b": Source.MEM, "mem_index": MemIndex.Y}],
    [{"op": Op.ISHL, "a": Source.MEM, "b": Source.X, "mem_index": MemIndex.NONE, "mem_base": 255}, {"op": Op.IAND,
      "b": Source.Y, "dst": 1}],
    [{"op": Op.IOR, "a": Source.MEM, "b": Source.MEM, "mem_index": MemIndex.IDX, "mem_base": 100, "dst": 1},
     {"a": Source.Y}],
]  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "odd", "thin"])
@pytest.mark.parametrize("columns", TABLES)
def test_tables_in_column_memories(name: str, columns: list[Fields]) -> None:
    config = machine(name)
    m = random_machine(config)
    types = streams(config.vector_lanes, x=DType.I16, y=DType.B32, o=DType.B32)
    check_vector(m, set_contexts(m, [columns]), ROWS | types)


@pytest.mark.parametrize("index", [MemIndex.X, MemIndex.Y])
def test_a_table_must_be_inside_the_memory(index: MemIndex) -> None:
    m = random_machine(machine("tiny"))
    m.scratchpad.data[:] = 0
    set_contexts(m, [[{"a": Source.MEM, "mem_index": index, "mem_base": 1}]])
    error = run(m, ("VECTOR", {})).error
    assert error is not None
    assert (error.cause, error.address) == (Cause.RANGE, 256)


@pytest.mark.parametrize("name", ["tiny", "base"])
@pytest.mark.parametrize("sink", [DType.I8, DType.I4, DType.B32, DType.KA])
def test_depthwise_epilogue(name: str, sink: DType) -> None:
    config = machine(name)
    m = random_machine(config)
    columns = [
        {"op": Op.IADD, "b": Source.MEM, "mem_index": MemIndex.IDX, "mem_base": 9},
        {"op": Op.IADD, "b": Source.Y},
    ]
    contexts = set_contexts(m, [columns])
    tile = {"n_tiles": 2, "m_tiles": 2, "m_count": config.rows * 3 - 1, "t_count": 2, "t_last": 1, "depthwise": 1}
    mac = {**tile, "in_w": 5, "in_h": 3, "out_w": 5, "kh": 2, "kw": 2, "in_plane": 15, "replay": 1}
    res = {"res_enable": 1, "res_base": 100, "res_plane": 20}
    out = {"out_type": sink, "out_base": 300, "out_plane": 30, "channels": 2 * config.word_bytes - 1, "idx_base": 3}
    check_epilogue(m, contexts, mac, tile | res | out | CLAMP)


def test_a_tile_has_its_accumulators_whatever_the_mode() -> None:
    config = machine("tiny")
    shape = {"depthwise": 1, "t_count": 2, "t_last": 2}
    for epilogue, address in (({"t_count": 2, "t_last": 2}, 4), ({"t_count": 4, "t_last": 4}, None)):
        m = random_machine(config)
        error = run(m, ("WEIGHT", {"entries": 1}), ("MAC", shape), ("EPILOGUE", epilogue)).error
        assert (None if error is None else (error.cause, error.address)) == (address and (Cause.TILE, address))
