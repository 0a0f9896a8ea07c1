"""EPILOGUE and VECTOR: beats into the dataflow array, and the sink behind it."""

from itertools import pairwise

import numpy as np

from headrace.config import NpuConfig

from .dataflow import Beats, DataflowArray
from .errors import SequenceError
from .fields import Fields
from .scratchpad import Scratchpad
from .streams import Clamp, read, write
from .tiles import Accumulators, TileShape
from .walks import drain_of, gathered, loops_of, sink_of

__all__ = ["epilogue", "vector"]


def epilogue(
    f: Fields, pad: Scratchpad, accumulators: Accumulators, dataflow: DataflowArray, config: NpuConfig
) -> None:
    """Execute an EPILOGUE command. What a reduction emits is written where the last beat it took would have been.

    Raises:
        Fault: TILE, RANGE.
        SequenceError: when there are no tiles to drain.
    """
    drain = drain_of(f, config)
    dataflow.check(f["ctx"], f["wraps"])
    shape, size, lanes = drain.shape, drain.stored.shape, config.vector_lanes
    x = np.zeros((*size[:3], size[3] * lanes), np.int32)
    x[..., : config.cols] = accumulators.take(shape)
    y = read(pad, drain.residual, drain.stored) if drain.residual else np.zeros(1, np.int32)
    beats = Beats(
        x=x.reshape(-1, lanes),
        y=np.broadcast_to(y, size).reshape(-1, lanes),
        idx=drain.idx,
        lanes=drain.stored.reshape(-1, lanes),
        number=np.arange(len(drain.idx)),
        ends=drain.ends,
    )
    result = _passes(f, shape, beats, dataflow, size[2] * size[3])
    if result.total == beats.total:
        values, emitted = result.x.reshape(size), result.lanes.reshape(size)
    else:
        values, emitted = np.zeros(size, np.int32), np.zeros(size, bool)
        values.reshape(-1, lanes)[result.number] = result.x
        emitted.reshape(-1, lanes)[result.number] = result.lanes
    write(pad, drain.out, values, emitted & drain.real, _clamp(f))


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


def vector(f: Fields, pad: Scratchpad, dataflow: DataflowArray, config: NpuConfig) -> None:
    """Execute a VECTOR command: all beats are read before any is written.

    Raises:
        Fault: RANGE.
        SequenceError: when the contexts emit another number of beats than the output loops place.
    """
    loops = loops_of(f, config)
    dataflow.check(f["ctx"], f["wraps"], len(loops.idx))
    y = read(pad, loops.y, loops.used) if loops.y else np.zeros(loops.used.shape, np.int32)
    x = read(pad, gathered(f, config, y) if loops.y and f["x_gather"] else loops.x, loops.used)
    beats = Beats(x=x, y=y, idx=loops.idx, lanes=loops.used, number=np.arange(len(x)), ends=loops.ends)
    result = dataflow.run(beats, f["ctx"], f["wraps"])
    placed = f["m0"] * f["m1"] * f["m2"]
    if result.total != placed:
        raise SequenceError(f"VECTOR emits {result.total} beats, its output loops place {placed}")
    write(pad, sink_of(f, config), result.x, result.lanes, _clamp(f))
