"""EPILOGUE and VECTOR: beats into the dataflow array, and the sink behind it."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from headrace.config import NpuConfig

from .dataflow import Beats, DataflowArray
from .errors import SequenceError
from .scratchpad import Scratchpad, View
from .streams import Clamp, beat_byte, read, write
from .tiles import Accumulators, TileShape

__all__ = ["epilogue", "vector"]

Fields = Mapping[str, int]

_INDICES = 1 << 17  # a VECTOR command's indices into column memories count modulo this


def epilogue(
    f: Fields, pad: Scratchpad, accumulators: Accumulators, dataflow: DataflowArray, config: NpuConfig
) -> None:
    """Execute an EPILOGUE command. What a reduction emits is written where the last beat it took would have been.

    Raises:
        Fault: TILE, RANGE.
        SequenceError: when there are no tiles to drain.
    """
    shape = TileShape.of(f, config)
    cols, lanes, blocks = config.cols, config.vector_lanes, config.acc_beats
    dataflow.check(f["ctx"], f["wraps"])
    m = shape.pixels[:, None, None, None]  # every array below is [n, row, half, block, lane], broadcast
    block = np.arange(blocks)[:, None]
    plane = np.arange(shape.n_tiles)[:, None, None, None, None] * shape.halves + np.arange(shape.halves)[:, None, None]
    first = plane * cols + block * lanes  # channel
    within = block * lanes + np.arange(lanes)
    size = (shape.n_tiles, len(shape.pixels), shape.halves, blocks)
    valid = within < cols
    if f["channels"]:
        valid = valid & (plane * cols + within < f["channels"])
    valid = np.broadcast_to(valid, (*size, lanes))
    real = m < f["m_count"]

    x = np.zeros((*size[:3], blocks * lanes), np.int32)
    x[..., :cols] = accumulators.take(shape)
    y = np.zeros(1, np.int32)
    if f["res_enable"]:
        res = View.of(f, "res_")
        y = read(pad, res, m, beat_byte(res.dtype, 0 * first if f["res_row"] else first), valid & real)
    beats = Beats(
        x=x.reshape(-1, lanes),
        y=np.broadcast_to(y, valid.shape).reshape(-1, lanes),
        idx=np.broadcast_to(f["idx_base"] + plane * blocks + block, (*size, 1)).reshape(-1),
        lanes=(valid & real).reshape(-1, lanes),
        number=np.arange(np.prod(size)),
        ends=np.broadcast_to(block == blocks - 1, (*size, 1)).reshape(-1),
    )
    result = _passes(f, shape, beats, dataflow, shape.halves * blocks)
    values, emitted = np.zeros(valid.shape, np.int32), np.zeros(valid.shape, bool)
    values.reshape(-1, lanes)[result.number] = result.x
    emitted.reshape(-1, lanes)[result.number] = result.lanes
    out = View.of(f, "out_")
    write(pad, out, m, beat_byte(out.dtype, first), values, emitted & real, _clamp(f))


def _passes(f: Fields, shape: TileShape, beats: Beats, dataflow: DataflowArray, row_beats: int) -> Beats:
    """What the dataflow array makes of the beats of all tiles; a reduction starts afresh in every tile."""
    if not dataflow.reduces(f["ctx"], f["wraps"]):
        return dataflow.run(beats, f["ctx"], f["wraps"])
    groups = [shape.row_groups(t) for t in range(shape.m_tiles)] * shape.n_tiles
    ends = np.cumsum(groups) * shape.rows * row_beats
    parts = [beats.select(slice(start, end)) for start, end in pairwise([0, *ends.tolist()])]
    return Beats.join([dataflow.run(part, f["ctx"], f["wraps"]) for part in parts])


def _clamp(f: Fields) -> Clamp:
    return Clamp(f["zp"], f["lo"], f["hi"])


def _steps(f: Fields, counts: tuple[int, ...], name: str) -> np.ndarray:
    """Sum of counter times step over the loops (loop 0 innermost), one entry a beat."""
    total = np.zeros(1, np.int64)
    for i, count in enumerate(counts):
        total = (np.arange(count, dtype=np.int64)[:, None] * f[f"{name}{i}"] + total).reshape(-1)
    return total


def vector(f: Fields, pad: Scratchpad, dataflow: DataflowArray, config: NpuConfig) -> None:
    """Execute a VECTOR command: all beats are read before any is written.

    Raises:
        Fault: RANGE.
        SequenceError: when the contexts emit another number of beats than the output loops place.
    """
    lanes = config.vector_lanes
    counts = tuple(f[f"n{i}"] for i in range(4))
    total = int(np.prod(counts))
    dataflow.check(f["ctx"], f["wraps"], total)
    number = np.arange(total, dtype=np.int64)
    inner = int(np.prod(counts[: f["idx_loop"]]))
    k = number // inner % counts[f["idx_loop"]]
    row = inner * counts[f["idx_loop"]]
    turn = number // row % counts[f["idx_loop"] + 1] if f["idx_loop"] < 3 else 0
    used = np.ones((total, lanes), bool)
    if f["channels"]:
        used = k[:, None] * lanes + np.arange(lanes) < f["channels"]

    def stream(name: str) -> np.ndarray:
        pixel, byte = (_steps(f, counts, f"{name}_d{k}")[:, None] for k in "pc")
        return read(pad, View.of(f, f"{name}_"), pixel, byte, used)

    y = stream("y") if f["y_enable"] else np.zeros((total, lanes), np.int32)
    idx = (f["idx_base"] + k + turn * f["idx_step"]) % _INDICES
    ends = number % row == row - 1
    beats = Beats(x=stream("x"), y=y, idx=idx, lanes=used, number=number, ends=ends)
    result = dataflow.run(beats, f["ctx"], f["wraps"])
    placed = tuple(f[f"m{i}"] for i in range(3))
    if len(result) != np.prod(placed):
        raise SequenceError(f"VECTOR emits {len(result)} beats, its output loops place {np.prod(placed)}")
    pixel, byte = (_steps(f, placed, f"o_d{k}")[:, None] for k in "pc")
    write(pad, View.of(f, "o_"), pixel, byte, result.x, result.lanes, _clamp(f))
