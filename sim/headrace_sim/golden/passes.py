"""EPILOGUE and VECTOR: beats into the dataflow array, and the sink behind it."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DType

from .dataflow import Beats, DataflowArray
from .errors import SequenceError
from .mac import Accumulators, TileShape
from .scratchpad import Scratchpad, View

__all__ = ["epilogue", "vector"]

Fields = Mapping[str, int]


def _sink(f: Fields, view: View, x: np.ndarray) -> np.ndarray:
    """What the sink makes of x: I8 clamp(x + zp, lo, hi), B32 x unchanged (int32)."""
    if view.dtype == DType.B32:
        return x
    return np.minimum(np.maximum(x.astype(np.int64) + f["zp"], f["lo"]), f["hi"]).astype(np.int32)


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
    dataflow.check(f["ctx"], f["wraps"], max(f["t_count"], f["t_last"]) * config.rows * blocks)
    m = shape.pixels[:, None, None]  # every array below is [n, row, block, lane], broadcast
    block = np.arange(blocks)[:, None]
    within = block * lanes + np.arange(lanes)
    n = np.arange(shape.n_tiles)[:, None, None, None]
    channel = n * cols + within
    used = (within < cols) & (m < f["m_count"])
    used = used & (channel < f["channels"]) if f["channels"] else np.broadcast_to(used, (shape.n_tiles, *used.shape))

    x = np.zeros((shape.n_tiles, len(shape.pixels), blocks * lanes), np.int32)
    x[:, :, :cols] = accumulators.take(shape)
    y = np.zeros(1, np.int32)
    if f["res_enable"]:
        res = View.of(f, "res_")
        y = pad.read(res, m, channel * res.element_bytes, used)
    idx = np.broadcast_to(f["idx_base"] + n * blocks + block, (*used.shape[:3], 1))
    beats = Beats(
        x=x.reshape(-1, lanes),
        y=np.broadcast_to(y, used.shape).reshape(-1, lanes),
        idx=idx.reshape(-1),
        lanes=used.reshape(-1, lanes),
        number=np.arange(used.size // lanes),
    )
    passes = [beats]
    if dataflow.reduces(f["ctx"], f["wraps"]):  # a reduction starts afresh in every tile
        ends = np.cumsum([shape.row_groups(t) for t in range(shape.m_tiles)] * shape.n_tiles) * config.rows * blocks
        passes = [beats.select(slice(start, end)) for start, end in pairwise([0, *ends.tolist()])]
    result = Beats.join([dataflow.run(part, f["ctx"], f["wraps"]) for part in passes])
    out = View.of(f, "out_")
    values, emitted = np.zeros(used.shape, np.int32), np.zeros(used.shape, bool)
    values.reshape(-1, lanes)[result.number] = _sink(f, out, result.x)
    emitted.reshape(-1, lanes)[result.number] = result.lanes
    pad.write(out, m, channel * out.element_bytes, values, emitted)


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
    inner = int(np.prod(counts[: f["idx_loop"]]))
    k = np.arange(total, dtype=np.int64) // inner % counts[f["idx_loop"]]
    used = np.ones((total, lanes), bool)
    if f["channels"]:
        used = k[:, None] * lanes + np.arange(lanes) < f["channels"]

    def stream(name: str) -> np.ndarray:
        view = View.of(f, f"{name}_")
        byte = _steps(f, counts, f"{name}_dc")[:, None] + np.arange(lanes) * view.element_bytes
        return pad.read(view, _steps(f, counts, f"{name}_dp")[:, None], byte, used)

    y = stream("y") if f["y_enable"] else np.zeros((total, lanes), np.int32)
    beats = Beats(x=stream("x"), y=y, idx=f["idx_base"] + k, lanes=used, number=np.arange(total))
    result = dataflow.run(beats, f["ctx"], f["wraps"])
    placed = tuple(f[f"m{i}"] for i in range(3))
    if len(result) != np.prod(placed):
        raise SequenceError(f"VECTOR emits {len(result)} beats, its output loops place {np.prod(placed)}")
    out = View.of(f, "o_")
    byte = _steps(f, placed, "o_dc")[:, None] + np.arange(lanes) * out.element_bytes
    pad.write(out, _steps(f, placed, "o_dp")[:, None], byte, _sink(f, out, result.x), result.lanes)
