"""The dataflow array against a model written from the command descriptions."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from headrace.config import NpuConfig, machine
from headrace.dataflow.column import Column
from headrace.isa import Cause, DataflowOp, DType, MemIndex, Reduce, Source

from .bench import Bench
from .elements import beat_size
from .model import Model

IMM, MEM, X, Y = Source.IMM, Source.MEM, Source.X, Source.Y
ODD = machine("odd")  # 3 columns of 2 lanes, 1 row, 3 MAC columns
THIN = machine("thin")  # 2 columns of 3 lanes, 3 rows, 1 MAC column
ONE = dataclasses.replace(THIN, name="one", columns=1, vector_lanes=1, cols=2, ring_bytes=512)
WIDE = dataclasses.replace(ODD, name="wide", vector_lanes=4, rows=2, cols=4, accs=4, ring_bytes=512)


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def signed_imm(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def fill(bench: Bench, seed: int = 7) -> None:
    rng = np.random.default_rng(seed)
    bench.spad[:] = rng.integers(0, 256, bench.spad.shape)
    bench.ka[:] = rng.integers(0, 8, bench.ka.shape)
    c = bench.config
    bench.memory = np.zeros((c.columns, c.column_words, c.vector_lanes), np.int64)
    bench.memory[:, :16] = rng.integers(-(1 << 20), 1 << 20, bench.memory[:, :16].shape)


def run(bench: Bench, **kwargs: Any) -> None:
    """Run the bench and compare the whole scratchpad with the model, whatever the order of the queues."""
    model = Model(bench.config, bench.spad, bench.ka, bench.contexts, bench.memory)
    tiles = list(bench.tiles)
    for name, fields in bench.commands:
        if name == "VECTOR":
            model.vector(fields)
        else:
            model.epilogue(fields, tiles)
    bench.run(**kwargs)
    assert not bench.errors
    wrong = np.argwhere(bench.spad != model.spad)
    assert not len(wrong), f"{len(wrong)} bytes differ, first [bank, word, byte] {wrong[:5].tolist()}"
    assert (bench.ka == model.ka).all()
    assert sorted(i for i, _ in bench.finished) == list(range(len(bench.commands)))
    for queue in ("EPILOGUE", "VECTOR"):
        done = [i for i, name in bench.finished if name == queue]
        assert done == sorted(done)


LONG = [pytest.param(config, marks=pytest.mark.regress) for config in (ONE, THIN, WIDE)]
EVERY = pytest.mark.parametrize("config", [ODD, *LONG], ids=lambda c: c.name)


def add_streams(config: NpuConfig) -> dict[str, int]:
    """x + y with a zero point, I8 to I8, 5 pixels of 9 channels, at offsets that straddle words."""
    blocks, step = -(-9 // config.vector_lanes), config.vector_lanes
    return {
        "x_base": 2, "x_plane": 8, "x_shift": 1, "x_c0": 1, "y_base": 60, "y_plane": 7, "y_p0": 1, "y_c0": 3,
        "o_base": 120, "o_plane": 9, "o_c0": 2, "o_shift": 0, "n0": blocks, "n1": 5, "x_dc0": step, "y_dc0": step,
        "x_dp1": 1, "y_dp1": 2, "m0": blocks, "m1": 5, "o_dc0": step, "o_dp1": 1, "channels": 9, "y_enable": 1,
        "zp": -3, "lo": -100, "hi": 90, "ctx": 0,
    }  # fmt: skip


def scale_wide(config: NpuConfig) -> dict[str, int]:
    """fp32 in and out, one beat across several words, a per-channel vector from the column memory."""
    blocks, step = -(-7 // config.vector_lanes), 4 * config.vector_lanes
    return {
        "ctx": 1, "x_type": 1, "o_type": 1, "x_base": 4, "x_plane": 6, "x_c0": 5, "x_dc0": step, "x_dp1": 3,
        "o_base": 180, "o_plane": 5, "o_c0": 7, "o_dc0": step, "o_dp1": 1, "n0": blocks, "n1": 3, "m0": blocks,
        "m1": 3, "channels": 7, "idx_base": 1, "idx_loop": 0,
    }  # fmt: skip


def average(config: NpuConfig) -> dict[str, int]:
    """Sum over a window of 3 x 2, then divide in a later column; fewer beats are emitted than read."""
    lanes = config.vector_lanes
    return {
        "ctx": 2, "x_base": 3, "x_plane": 16, "n0": 3, "n1": 2, "n2": 4, "n3": 2, "x_dp0": 1, "x_dp1": 7, "x_dp2": 2,
        "x_dc3": lanes, "o_base": 260, "o_plane": 16, "m0": 4, "m1": 2, "o_dp0": 1, "o_dc1": lanes, "idx_loop": 3,
        "channels": 2 * lanes - 1, "lo": -128, "hi": 127,
    }  # fmt: skip


def wrapped(config: NpuConfig) -> dict[str, int]:
    """Three contexts after each other through the gasket, with a reduction in the first of them."""
    return {
        "ctx": 3, "wraps": 2, "y_enable": 1, "n0": 2, "n1": 6, "x_dp0": 1, "x_dp1": 2, "y_dp0": 2, "y_dp1": 1,
        "y_base": 20, "m0": 6, "o_dp0": 1, "o_base": 300, "lo": -128, "hi": 127,
    }  # fmt: skip


def vector_contexts(config: NpuConfig) -> dict[tuple[int, int], dict[str, int]]:
    last = config.columns - 1
    contexts = {
        (0, 0): {"op": DataflowOp.IADD, "a": X, "b": Y},
        (1, last): {"op": DataflowOp.FMUL, "a": X, "b": MEM, "mem_base": 2, "mem_index": 1},
        (2, last): {"op": DataflowOp.IDIVR, "a": X, "b": IMM, "imm": 10923, "sh": 16},
        (2, 0): {"reduce": Reduce.SUM, "repeat": 6},
        (3, 0): {"op": DataflowOp.IADD, "a": X, "b": Y, "dst": 1, "reduce": Reduce.MAX, "repeat": 2},
        (4, last): {"op": DataflowOp.IMUL, "a": Y, "b": IMM, "imm": 3},
        (5, 0): {"op": DataflowOp.ISUB, "a": X, "b": Y},
    }
    return contexts


@EVERY
def test_vector_commands(config):
    """Commands of all kinds back to back, with stalls on every port."""
    bench = Bench(config, stall=0.3)
    fill(bench)
    bench.contexts = vector_contexts(config)
    kinds = [add_streams, scale_wide, average, wrapped, average, add_streams, wrapped, scale_wide]
    commands = [kind(config) for kind in kinds]
    for i, command in enumerate(commands[4:]):
        command["o_base"] = 340 + 90 * i
    bench.commands = [("VECTOR", command) for command in commands]
    run(bench)


def epilogue_case(config: NpuConfig, rng: np.random.Generator, **more: int) -> tuple[dict[str, int], list[np.ndarray]]:
    """3 n tiles, 2 m tiles, the last one short and not full."""
    t_count, t_last = config.accs, max(1, config.accs - 2)
    m_count = (t_count + t_last) * config.rows - (config.rows > 1)
    fields = {
        "n_tiles": 3, "m_tiles": 2, "t_count": t_count, "t_last": t_last, "m_count": m_count,
        "channels": 3 * config.cols - 1, "out_base": 300, "out_plane": 12, "out_c0": 1, "out_p0": 1, "out_shift": 1,
        "res_base": 10, "res_plane": 15, "res_p0": 2, "idx_base": 1, "zp": 4, "lo": -128, "hi": 127, **more,
    }  # fmt: skip
    tiles = [
        rng.integers(-(1 << 17), 1 << 17, (t, config.rows, config.cols)).astype(np.int32)
        for _ in range(3)
        for t in (t_count, t_last)
    ]
    return fields, tiles


@EVERY
def test_epilogue(config):
    """Tiles with a residual, wide ones with a wide residual, tiles without and tiles that reduce, back to back."""
    rng = np.random.default_rng(5)
    bench = Bench(config, stall=0.3)
    fill(bench)
    bench.contexts = {
        (0, 0): {"op": DataflowOp.ISHR, "a": X, "b": MEM, "mem_index": 1, "sh": 10},
        (0, config.columns - 1): {"op": DataflowOp.IADD, "a": X, "b": Y},
        (1, 0): {"reduce": Reduce.MAX, "repeat": config.acc_beats * 2},
        (2, 0): {"reduce": Reduce.SUM, "repeat": 3, "across": 1},
    }
    cases = [
        epilogue_case(config, rng, res_enable=1),
        epilogue_case(config, rng, res_enable=1, res_row=1, res_type=1),
        epilogue_case(config, rng, res_enable=1, res_type=1, out_type=1, out_base=600),
        epilogue_case(config, rng, out_base=900, out_plane=8),
        epilogue_case(config, rng, out_base=700, out_plane=20, ctx=1),
        epilogue_case(config, rng, out_base=450, out_plane=8, ctx=1, wraps=1),
        epilogue_case(config, rng, out_base=250, out_plane=8, ctx=2, out_type=1, out_c0=0),
    ]
    bench.commands = [("EPILOGUE", fields) for fields, _ in cases]
    bench.tiles = [tile for _, tiles in cases for tile in tiles]
    run(bench)


def test_epilogue_interleaved_pixels():
    """Row groups of 4 consecutive pixels a row, wraps, no residual."""
    config = WIDE
    bench = Bench(config)
    fill(bench)
    bench.contexts = {
        (0, 1): {"op": DataflowOp.I2F, "a": X},
        (0, 2): {"op": DataflowOp.FMUL, "a": X, "b": IMM, "imm": signed_imm(bits(1 / 700))},
        (1, 0): {"op": DataflowOp.F2IC, "a": X, "b": IMM, "imm": signed_imm(100 << 16 | 0xFF90)},
    }
    fields, tiles = epilogue_case(config, np.random.default_rng(6), ilv=2, t_count=4, t_last=4, m_count=15, wraps=1)
    tiles = [np.random.default_rng(i).integers(-90_000, 90_000, (4, 2, 4)).astype(np.int32) for i in range(6)]
    bench.commands, bench.tiles = [("EPILOGUE", fields)], tiles
    run(bench)


def test_both_queues():
    """Long vector passes give way to epilogue tiles at chunk boundaries; reductions of both queues do not mix."""
    config = ODD
    rng = np.random.default_rng(8)
    bench = Bench(config)
    fill(bench)
    bench.contexts = {
        (0, 0): {"op": DataflowOp.ISHR, "a": X, "b": IMM, "sh": 8},
        (1, 0): {"reduce": Reduce.SUM, "repeat": 100},
    }
    fields, tiles = epilogue_case(config, rng, out_base=200, out_plane=20)
    vector = {
        "ctx": 1, "n0": 100, "n1": 3, "x_dp0": 1, "x_dc1": 1, "x_plane": 100, "m0": 3, "o_dp0": 1, "o_type": 1,
        "o_base": 600, "o_plane": 10,
    }  # fmt: skip
    bench.commands, bench.tiles = [("VECTOR", vector), ("EPILOGUE", fields), ("VECTOR", vector)], tiles
    run(bench)
    assert [name for _, name in bench.finished] == ["EPILOGUE", "VECTOR", "VECTOR"]


@pytest.mark.parametrize(
    "kind", [DType.BF16, *(pytest.param(k, marks=pytest.mark.regress) for k in (DType.I8, DType.I4))]
)
def test_one_beat_a_cycle(kind):
    """Beats of consecutive commands that lie in one word each enter the columns without a bubble."""
    config = WIDE
    bench = Bench(config)
    fill(bench)
    step = beat_size(kind, config.vector_lanes)
    command = {
        "n0": 2, "n1": 20, "x_dc0": step, "x_dp1": 1, "m0": 2, "m1": 20, "o_dc0": step, "o_dp1": 1, "o_base": 100,
        "y_enable": 1, "y_base": 40, "y_dp1": 1, "y_dc0": step, "lo": -128, "hi": 127, "x_plane": 20, "y_plane": 20,
        "o_plane": 20, "x_type": kind, "y_type": kind, "o_type": kind,
    }  # fmt: skip
    bench.contexts = {(0, 1): {"op": DataflowOp.IADD, "a": X, "b": Y}}
    bench.commands = [("VECTOR", command), ("VECTOR", {**command, "o_base": 200})]
    run(bench)
    assert len(bench.beats) == 80
    assert bench.beats[-1] - bench.beats[0] == 79


@pytest.mark.parametrize("wraps", [0, pytest.param(1, marks=pytest.mark.regress)])
def test_tiles_follow_each_other(wraps):
    """Beats of consecutive tiles and commands enter the columns without a bubble; with wraps each enters twice."""
    config = WIDE
    bench = Bench(config)
    fill(bench)
    fields, tiles = epilogue_case(config, np.random.default_rng(3), out_c0=0, res_enable=1, wraps=wraps)
    bench.commands, bench.tiles = [("EPILOGUE", fields)] * 2, tiles * 2
    run(bench)
    beats = 2 * (wraps + 1) * sum(len(t) * config.rows * config.acc_beats for t in tiles)
    assert len(bench.beats) == beats
    if not wraps:
        assert bench.beats[-1] - bench.beats[0] == beats - 1


def test_depthwise_tiles():
    """Two halves of a word a row group: order, channels, index and residual of every beat; plain tiles in between."""
    config = WIDE
    rng = np.random.default_rng(4)
    bench = Bench(config, stall=0.2)
    fill(bench)
    bench.contexts = {
        (0, 0): {"op": DataflowOp.ISHR, "a": X, "b": MEM, "mem_index": MemIndex.IDX, "sh": 10},
        (0, 1): {"op": DataflowOp.IADD, "a": X, "b": Y},
    }
    shape = {"t_count": 2, "t_last": 1, "m_count": 5, "res_enable": 1, "n_tiles": 2, "m_tiles": 2}
    cases = [
        ({"depthwise": 1, "channels": 15}, 2),
        ({"out_base": 400}, 1),
        ({"depthwise": 1, "out_base": 600, "out_type": DType.I16, "ilv": 0}, 2),
    ]
    for more, halves in cases:
        fields, _ = epilogue_case(config, rng, **shape, **{"channels": 0, **more})
        bench.commands.append(("EPILOGUE", fields))
        bench.tiles += [
            rng.integers(-(1 << 17), 1 << 17, (t * halves, config.rows, config.cols)).astype(np.int32)
            for _ in range(2)
            for t in (2, 1)
        ]
    run(bench)


@EVERY
def test_epilogue_types(config):
    """Residual and output of every type that the machine's C and L allow; the activation shift of every word."""
    rng = np.random.default_rng(9)
    bench = Bench(config)
    fill(bench)
    bench.contexts = {
        (0, 0): {"op": DataflowOp.ISHR, "a": X, "b": IMM, "sh": 10},
        (0, config.columns - 1): {"op": DataflowOp.IXOR, "a": X, "b": Y},
    }
    even = config.cols % 2 == config.vector_lanes % 2 == 0
    kinds = [(DType.U8, DType.BF16), (DType.I16, DType.U8), (DType.BF16, DType.I16), (DType.KA, DType.B32)]
    base = 300
    for out_type, res_type in kinds + [(DType.I4, DType.I4)] * even:
        more = {"out_type": out_type, "res_type": res_type, "out_base": base, "out_c0": 2, "t_count": 2, "t_last": 1}
        fields, _ = epilogue_case(config, rng, res_enable=1, n_tiles=2, m_count=3 * config.rows, **more)
        fields |= {"lo": 3, "hi": 7 if out_type == DType.I4 else 120, "channels": 2 * config.cols}
        bench.commands.append(("EPILOGUE", fields))
        bench.tiles += [
            rng.integers(-(1 << 17), 1 << 17, (t, config.rows, config.cols)).astype(np.int32)
            for _ in range(2)
            for t in (2, 1)
        ]
        base += 100
    run(bench)


def tables(config: NpuConfig) -> dict[tuple[int, int], dict[str, int]]:
    """Where there is one column, the contexts of column 0 prevail."""
    last = config.columns - 1
    return {
        (0, last): {"op": DataflowOp.IXOR, "a": MEM, "b": X, "mem_index": MemIndex.Y},
        (2, last): {"op": DataflowOp.ISHL, "a": X, "b": IMM, "imm": 3},
        (3, last): {"op": DataflowOp.IADD, "a": X, "b": Y, "reduce": Reduce.MAX, "across": 1},
        (0, 0): {"op": DataflowOp.IADD, "a": X, "b": MEM, "mem_index": MemIndex.X},
        (1, 0): {"op": DataflowOp.FRCP, "a": X},
        (2, 0): {"reduce": Reduce.SUM, "across": 1, "repeat": 2},
        (3, 0): {"reduce": Reduce.MIN, "across": 1, "repeat": 3, "dst": 1},
        (4, 0): {"op": DataflowOp.IADD, "a": X, "b": IMM, "imm": 9, "across": 1},
    }


@EVERY
def test_tables_types_and_lanes(config):
    """Tables of 256 elements a lane, streams of all types, reductions over lanes with beats that are not full."""
    bench = Bench(config, stall=0.2)
    fill(bench)
    rng = np.random.default_rng(12)
    bench.memory[:] = rng.integers(-(1 << 31), 1 << 31, bench.memory.shape)
    bench.contexts = tables(config)
    lanes = config.vector_lanes
    read = {"n0": 2, "n1": 6, "x_base": 2, "x_plane": 40, "y_base": 3, "y_plane": 40, "x_dp1": 2, "y_dp1": 1}
    write = {"m0": 2, "m1": 6, "o_dp1": 1, "o_plane": 20, "lo": -8, "hi": 7, "zp": 1, "o_c0": 1}
    kinds = [
        (0, DType.U8, DType.I4, DType.B32), (0, DType.I16, DType.U8, DType.I16), (1, DType.BF16, DType.I8, DType.BF16),
        (2, DType.I4, DType.I8, DType.I16), (3, DType.I16, DType.I8, DType.U8), (4, DType.I4, DType.I8, DType.I4),
        (4, DType.U8, DType.I8, DType.KA),
    ]  # fmt: skip
    for number, (context, x, y, o) in enumerate(kinds):
        fields = {**read, **write, "ctx": context, "x_type": x, "y_type": y, "o_type": o, "y_enable": 1}
        fields |= {"o_base": 250 + 60 * number, "channels": 2 * lanes - 1, "x_c0": 1}
        for view, kind in (("x", x), ("y", y), ("o", o)):
            fields[f"{view}_dc0"] = max(1, beat_size(kind, lanes))
        if context in (2, 3):  # emitted beats have all lanes: 12 beats become 6 or 4
            emitted = 6 if context == 2 else 4
            fields |= {"m0": 1, "m1": emitted}
        bench.commands.append(("VECTOR", fields))
    run(bench)


@pytest.mark.parametrize(
    ("fields", "cause", "address"),
    [
        ({"x_base": ODD.bank_words - 2, "n0": 5, "x_dp0": 1}, Cause.RANGE, ODD.bank_words),
        ({"o_base": ODD.bank_words - 1, "n0": 2, "m0": 2, "o_dp0": 1}, Cause.RANGE, ODD.bank_words),
        ({"x_c0": 7, "x_plane": ODD.bank_words}, Cause.RANGE, ODD.bank_words),
        ({"x_c0": 8, "x_plane": 65535}, Cause.RANGE, 65535),
        ({"x_dp0": -1, "n0": 2, "y_enable": 1}, Cause.RANGE, None),
        ({"ctx": 1, "n0": 9, "m0": 9, "idx_base": 250}, Cause.RANGE, 256),
        ({"ctx": 1, "wraps": 1, "n0": 3, "idx_base": 65535}, Cause.RANGE, 65536),
        ({"ctx": 2}, Cause.RANGE, 256),
        ({"ctx": 7, "wraps": 1}, Cause.RANGE, 8),
        ({"wraps": 1, "n0": ODD.gasket_beats + 1, "m0": ODD.gasket_beats + 1}, Cause.RANGE, None),
    ],
)
def test_vector_errors(fields, cause, address):
    bench = Bench(ODD)
    bench.contexts = {
        (1, 1): {"b": MEM, "mem_index": MemIndex.IDX, "mem_base": 1},
        (2, 1): {"b": MEM, "mem_index": MemIndex.X, "mem_base": 1},
    }
    bench.commands = [("VECTOR", {"o_base": 100}), ("VECTOR", fields)]
    bench.run(cycles=500)
    assert bench.errors["VECTOR"][:2] == (cause, 1)
    assert address is None or bench.errors["VECTOR"][2] == address


def test_tile_shape_error():
    bench = Bench(ODD)
    fields, tiles = epilogue_case(ODD, np.random.default_rng(3))
    bench.commands, bench.tiles = [("EPILOGUE", fields)], [tiles[0], tiles[0]]
    bench.run(cycles=500)
    assert bench.errors["EPILOGUE"] == (Cause.TILE, 0, ODD.accs)


def row_contexts(config: NpuConfig) -> dict[tuple[int, int], dict[str, int]]:
    """Reductions that end with rows, one after the other in columns and through the gasket."""
    last, middle = config.columns - 1, config.sum_column or 0
    return {
        (0, 0): {"op": DataflowOp.I2F, "a": X},
        (0, middle): {"reduce": Reduce.FSUM, "row": 1, "repeat": 3},
        (1, 0): {"reduce": Reduce.FMAX, "row": 1, "across": 1},
        (2, 0): {"reduce": Reduce.MAX, "repeat": 2},  # of rows of 4 or of 6 beats: their ends stay marked
        (2, last): {"reduce": Reduce.SUM, "row": 1},
        (3, 0): {"reduce": Reduce.SUM, "repeat": 2},
        (4, last): {"op": DataflowOp.IADD, "a": X, "b": Source.IDX, "reduce": Reduce.MIN, "row": 1, "across": 1},
        (5, middle): {"op": DataflowOp.FMUL, "a": X, "b": X, "reduce": Reduce.FSUM, "row": 1, "dst": 1},
        (6, 0): {"op": DataflowOp.FADD, "a": X, "b": Y, "reduce": Reduce.FMIN, "row": 1},
    }


@EVERY
def test_vector_rows(config):
    """Rows of loops 0 .. idx_loop for every idx_loop, with wraps, commands back to back."""
    bench = Bench(config, stall=0.2)
    fill(bench)
    bench.contexts = row_contexts(config)
    lanes = config.vector_lanes
    counts, step = (2, 1, 3, 2), beat_size(DType.I16, lanes)
    for number, (context, wraps, loop) in enumerate([
        *((0, 0, loop) for loop in range(4)), (1, 0, 2), (2, 0, 2), (3, 1, 2), (3, 1, 0), (5, 1, 2), (6, 0, 1),
    ]):  # fmt: skip
        sums = context in (0, 5) and config.sum_column is not None
        length = int(np.prod(counts[: loop + 1]))
        emitted = 12 // length
        if context == 0 and not sums:
            emitted = 12
        if (context, loop) == (3, 0):
            emitted = 6
        bench.commands.append(("VECTOR", {
            **{f"n{i}": n for i, n in enumerate(counts)}, "ctx": context, "wraps": wraps, "idx_loop": loop,
            "x_type": DType.BF16 if context > 4 else DType.I16, "o_type": DType.B32, "channels": counts[loop] * lanes,
            "x_dc0": step, "x_dp2": 1, "x_dp3": 3, "x_base": 3, "x_plane": 40, "idx_base": 7, "y_enable": context > 4,
            "y_type": DType.BF16, "y_base": 4, "y_plane": 40, "y_dp1": 1, "y_dp2": 2,
            "m0": emitted, "o_dp0": 1, "o_base": 250 + 70 * number, "o_plane": 16,
        }))  # fmt: skip
    run(bench)


@pytest.mark.parametrize(
    ("config", "depthwise"),
    [
        pytest.param(config, depthwise, id=f"{config.name}-{depthwise}", marks=[pytest.mark.regress] * (config != ODD))
        for config in (ODD, ONE, THIN, WIDE)
        for depthwise in (0, 1)
        if not depthwise or config.halves in (1, 2)
    ],
)
def test_epilogue_rows(config, depthwise):
    """Pixels (and halves) of tiles are rows; what a reduction emits goes where the row's last beat would."""
    rng = np.random.default_rng(14)
    bench = Bench(config, stall=0.1)
    fill(bench)
    bench.contexts = row_contexts(config)
    halves = config.halves if depthwise else 1
    for number, (context, wraps) in enumerate([(0, 0), (1, 0), (3, 1), (5, 1), (4, 0)]):
        fields, _ = epilogue_case(
            config, rng, ctx=context, wraps=wraps, out_type=DType.B32, out_c0=0, out_base=40 + 150 * number,
            out_plane=10, n_tiles=2, t_count=2 // halves, t_last=1, m_count=3 * config.rows // halves, res_enable=1,
            depthwise=depthwise, channels=2 * halves * config.cols - 1,
        )  # fmt: skip
        bench.commands.append(("EPILOGUE", fields))
        bench.tiles += [
            rng.integers(-(1 << 17), 1 << 17, (t * halves, config.rows, config.cols)).astype(np.int32)
            for _ in range(2)
            for t in (fields["t_count"], 1)
        ]
    run(bench)


def test_rows_of_both_queues():
    """Rows of vector commands that epilogue tiles interrupt at chunks: sums of both queues do not mix."""
    config = ODD
    bench = Bench(config, tile_interval=150)
    fill(bench)
    bench.contexts = row_contexts(config)
    fields, tiles = epilogue_case(config, np.random.default_rng(8), out_base=400, out_plane=20, out_type=DType.B32)
    vector = {
        "n0": 300, "n1": 3, "x_dp0": 1, "x_dp1": 7, "x_plane": 100, "m0": 3, "o_dp0": 1, "o_type": DType.B32,
        "o_base": 800, "o_plane": 10,
    }  # fmt: skip
    bench.commands, bench.tiles = [("VECTOR", vector), ("EPILOGUE", fields)], tiles
    run(bench)


def test_latency():
    assert [Column.latency(lanes, False) for lanes in (1, 2, 8, 16, 64)] == [8, 9, 9, 10, 10]
    assert [Column.latency(lanes, True) for lanes in (1, 2, 8, 16, 64)] == [34] * 5


@EVERY
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_gather(config, stall):
    """Lane 0 of y moves the pixel of x; commands that gather and ones that do not take turns."""
    rng = np.random.default_rng(21)
    bench = Bench(config, stall=stall)
    fill(bench)
    bench.contexts = {(1, 0): {"op": DataflowOp.IADD, "b": Source.Y}}
    step = beat_size(DType.I8, config.vector_lanes)
    for number, bits in enumerate([3, 0, 6, 5, 0, 16, 1]):
        kind = [DType.U8, DType.I8, DType.I16, DType.B32][number % 4] if bits < 16 else DType.U8
        bench.commands.append(("VECTOR", {
            "n0": 3, "n1": 11, "ctx": number % 2, "channels": (3 * config.vector_lanes - 1) * (number % 3 != 0),
            "x_type": DType.I8, "x_base": 5, "x_plane": 60, "x_shift": number % 2, "x_dc0": step, "x_dp1": 1,
            "x_gather": bits, "y_enable": int(number != 4), "y_type": kind, "y_base": 9, "y_plane": 50,
            "y_dc0": beat_size(kind, config.vector_lanes), "y_dp1": 1,
            "o_type": DType.B32, "o_base": 400 + 40 * number, "o_plane": 11, "m0": 3, "m1": 11,
            "o_dc0": 4 * config.vector_lanes, "o_dp1": 1, "zp": int(rng.integers(-9, 9)),
        }))  # fmt: skip
    run(bench)
