"""The order in which EPILOGUE and VECTOR commands go through beats; that of a small command is kept.

Images are run again and layers resemble each other: working out the order takes longer than executing a small command.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from math import prod
from typing import TypeVar

import numpy as np

from headrace.config import NpuConfig

from .fields import Fields
from .scratchpad import Geometry, View
from .streams import Place, beat_byte
from .tiles import TileShape

__all__ = ["Drain", "Loops", "drain_of", "gathered", "loops_of", "sink_of"]

_KEPT = 1 << 12  # commands,
_KEPT_BEATS = 1 << 10  # of at most this many beats
_INDICES = 1 << 17  # a VECTOR command's indices into column memories count modulo this


_T = TypeVar("_T")
_Walk = Callable[[Fields, NpuConfig], _T]


def _kept(beats: _Walk[int]) -> Callable[[_Walk[_T]], _Walk[_T]]:
    """Decorator: remember what a function makes of commands of few `beats`."""

    def keep(make: _Walk[_T]) -> _Walk[_T]:
        remembered = lru_cache(_KEPT)(make)

        @wraps(make)
        def walk(f: Fields, config: NpuConfig) -> _T:
            return (remembered if beats(f, config) <= _KEPT_BEATS else make)(f, config)

        return walk

    return keep


@dataclass(frozen=True)
class Drain:
    """Beats of an EPILOGUE command. stored: valid lanes of real pixels, bool [n tile, row, half, block, lane]; real:
    rows of real pixels, broadcast to that; idx and ends as in `Beats`.
    """

    shape: TileShape
    stored: np.ndarray
    real: np.ndarray
    residual: Place | None
    out: Place
    idx: np.ndarray
    ends: np.ndarray


@_kept(lambda f, config: f["n_tiles"] * f["m_tiles"] * f["t_count"] * config.rows * config.acc_beats)
def drain_of(f: Fields, config: NpuConfig) -> Drain:
    """The walk of an EPILOGUE command."""
    shape, geometry = TileShape.of(f, config), Geometry.of(config)
    cols, lanes, blocks = config.cols, config.vector_lanes, config.acc_beats
    m = shape.pixels[:, None, None, None]  # every array below is [n, row, half, block, lane], broadcast
    block = np.arange(blocks)[:, None]
    plane = np.arange(shape.n_tiles)[:, None, None, None, None] * shape.halves + np.arange(shape.halves)[:, None, None]
    first = plane * cols + block * lanes  # channel
    within = block * lanes + np.arange(lanes)
    size = (shape.n_tiles, len(shape.pixels), shape.halves, blocks)
    valid = within < cols
    if f["channels"]:
        valid = valid & (plane * cols + within < f["channels"])
    real = m < f["m_count"]

    def place(view: View, channel: np.ndarray) -> Place:
        return Place.of(geometry, view, m, beat_byte(view.dtype, channel), lanes)

    return Drain(
        shape,
        stored=np.broadcast_to(valid & real, (*size, lanes)),
        real=real,
        residual=place(View.of(f, "res_"), 0 * first if f["res_row"] else first) if f["res_enable"] else None,
        out=place(View.of(f, "out_"), first),
        idx=np.broadcast_to(f["idx_base"] + plane * blocks + block, (*size, 1)).reshape(-1),
        ends=np.broadcast_to(block == blocks - 1, (*size, 1)).reshape(-1),
    )


@dataclass(frozen=True)
class Loops:
    """Beats of a VECTOR command: where operands are, and idx, valid lanes and ends as in `Beats`."""

    x: Place
    y: Place | None
    idx: np.ndarray
    used: np.ndarray
    ends: np.ndarray


def _steps(f: Fields, counts: tuple[int, ...], name: str) -> np.ndarray:
    """Sum of counter times step over the loops (loop 0 innermost), one entry a beat."""
    total = np.zeros(1, np.int64)
    for i, count in enumerate(counts):
        total = (np.arange(count, dtype=np.int64)[:, None] * f[f"{name}{i}"] + total).reshape(-1)
    return total


def _place(f: Fields, counts: tuple[int, ...], name: str, config: NpuConfig, more: np.ndarray | int = 0) -> Place:
    pixel, byte = (_steps(f, counts, f"{name}_d{k}")[:, None] for k in "pc")
    return Place.of(Geometry.of(config), View.of(f, f"{name}_"), pixel + more, byte, config.vector_lanes)


@_kept(lambda f, _: f["n0"] * f["n1"] * f["n2"] * f["n3"])
def loops_of(f: Fields, config: NpuConfig) -> Loops:
    """The walk of a VECTOR command through its operands."""
    counts = tuple(f[f"n{i}"] for i in range(4))
    number = np.arange(prod(counts), dtype=np.int64)
    inner = prod(counts[: f["idx_loop"]])
    k = number // inner % counts[f["idx_loop"]]
    row = inner * counts[f["idx_loop"]]
    turn = number // row % counts[f["idx_loop"] + 1] if f["idx_loop"] < 3 else 0
    channel = k[:, None] * config.vector_lanes + np.arange(config.vector_lanes)
    return Loops(
        x=_place(f, counts, "x", config),
        y=_place(f, counts, "y", config) if f["y_enable"] else None,
        idx=(f["idx_base"] + k + turn * f["idx_step"]) % _INDICES,
        used=channel < f["channels"] if f["channels"] else np.ones_like(channel, bool),
        ends=number % row == row - 1,
    )


@_kept(lambda f, _: f["m0"] * f["m1"] * f["m2"])
def sink_of(f: Fields, config: NpuConfig) -> Place:
    """Where the beats that a VECTOR command emits are stored."""
    return _place(f, (f["m0"], f["m1"], f["m2"]), "o", config)


def gathered(f: Fields, config: NpuConfig, y: np.ndarray) -> Place:
    """Where x is when y, int32 [beats, L], moves its pixels."""
    counts = tuple(f[f"n{i}"] for i in range(4))
    return _place(f, counts, "x", config, more=y[:, :1].astype(np.int64) & ((1 << f["x_gather"]) - 1))
