"""Random VECTOR passes: elementwise over one or two streams, and reductions, with random loops and layouts."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headrace.isa import DType

from .allocate import NoRoom, Tensor
from .builder import Builder
from .chains import Interval, random_chain
from .patches import emit_patched
from .transfers import load_tensor, store_tensor

__all__ = ["vector"]

_BOUNDS = {DType.I8: Interval(-128, 127), DType.B32: Interval(-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class _Loop:
    """An input loop: what it walks over, its count, and whether its beats are reduced."""

    kind: str  # "channel" blocks of L elements, "pixel" or "skip" (every other pixel)
    count: int
    reduced: bool = False


def vector(build: Builder, source: Tensor | None) -> None:
    """Append a VECTOR pass over `source`, or new inputs, to the layer.

    Raises:
        NoRoom: when something does not fit.
    """
    build.new_unit()
    lanes = build.config.vector_lanes
    x = source if source is not None else _stream(build)
    elements = x.channels // _size(x.dtype)
    blocks = -(-elements // lanes) if elements % lanes == 0 or build.chance(0.7) else max(1, elements // lanes)
    loops = _loops(build, x, blocks)
    repeats, emitted = _split(loops)
    y = _like(build, x) if build.chance(0.5) else None
    chain = random_chain(
        build.rng,
        length=build.pick(1, build.config.columns + 1),
        blocks=blocks,
        lanes=lanes,
        x=_BOUNDS[x.dtype],
        y=_BOUNDS[y.dtype] if y is not None else Interval(0, 0),
        repeats=repeats,
    )
    idx_base = build.pick(0, 3) if build.chance(0.3) else 0
    build.new_unit()
    placed = build.place(chain, idx_base=idx_base)
    if placed.wraps and int(np.prod([loop.count for loop in loops])) > build.config.gasket_beats:
        raise NoRoom
    partial = elements < blocks * lanes or build.chance(0.2)
    channels = min(elements, blocks * lanes) if partial else 0
    out, out_fields = _output(build, emitted, channels or blocks * lanes)
    fields = _input_fields(build, loops, x, y) | out_fields
    fields |= {"ctx": placed.ctx, "wraps": placed.wraps, "idx_base": idx_base, "channels": channels}
    low, high = (-128, 127) if build.chance(0.6) else sorted((build.pick(-128, 127), build.pick(-128, 127)))
    fields |= {"zp": build.pick(-128, 127), "lo": low, "hi": high}
    emit_patched(build, "VECTOR", fields, columns=placed.columns)
    kinds = ", ".join(f"{loop.kind} {loop.count}{' reduced' if loop.reduced else ''}" for loop in loops)
    build.layer.description = f"vector {x.dtype.name}{' and y' if y else ''} over {kinds} to {out.dtype.name}"
    build.new_unit()
    store_tensor(build, out)
    build.layer.results.append(out)


def _size(dtype: DType) -> int:
    return 4 if dtype == DType.B32 else 1


def _stream(build: Builder) -> Tensor:
    dtype = DType.B32 if build.chance(0.35) else DType.I8
    elements = build.pick(1, 4 * build.config.vector_lanes)
    pixels = build.pick(1, 36)
    if build.chance(0.15):  # longer than the longest pass between epilogues
        pixels, elements = build.pick(100, 400), build.pick(1, 2 * build.config.vector_lanes)
    tensor = build.chip.tensor(pixels=pixels, channels=elements * _size(dtype), dtype=dtype)
    load_tensor(build, tensor)
    return tensor


def _like(build: Builder, x: Tensor) -> Tensor:
    dtype = x.dtype if build.chance(0.6) else DType(1 - x.dtype)
    channels = x.channels // _size(x.dtype) * _size(dtype)
    tensor = build.chip.tensor(pixels=x.pixels, channels=channels, dtype=dtype)
    load_tensor(build, tensor)
    return tensor


def _loops(build: Builder, x: Tensor, blocks: int) -> list[_Loop]:
    """Loops, innermost first, in random order; a prefix of them may be reduced, never the channel loop."""
    pixels = x.pixels if build.chance(0.7) else build.pick(1, x.pixels)
    divisors = [d for d in range(1, pixels + 1) if pixels % d == 0]
    inner = int(build.rng.choice(divisors))
    counts = [inner, pixels // inner] if build.chance(0.6) else [pixels]
    loops = [_Loop("channel", blocks), *(_Loop(f"pixel{i}", count) for i, count in enumerate(counts))]
    order = build.rng.permutation(len(loops)) if build.chance(0.7) else np.arange(len(loops))
    loops = [loops[i] for i in order]
    if build.chance(0.5):
        prefix = [loop.kind for loop in loops].index("channel")
        reduced = build.pick(0, prefix)
        loops = [_Loop(loop.kind, loop.count, i < reduced) for i, loop in enumerate(loops)]
    return loops


def _split(loops: list[_Loop]) -> tuple[tuple[int, ...], list[_Loop]]:
    return tuple(loop.count for loop in loops if loop.reduced), [loop for loop in loops if not loop.reduced]


def _pixel_steps(loops: list[_Loop]) -> dict[str, int]:
    """Pixels from one count to the next of each pixel loop: pixel0 is the inner one."""
    counts = {loop.kind: loop.count for loop in loops}
    return {"pixel0": 1, "pixel1": counts.get("pixel0", 1)}


def _input_fields(build: Builder, loops: list[_Loop], x: Tensor, y: Tensor | None) -> dict[str, int]:
    lanes = build.config.vector_lanes
    steps = _pixel_steps(loops)
    fields = x.view("x_", typed=True) | {"y_enable": int(y is not None)}
    if y is not None:
        fields |= y.view("y_", typed=True)
    broadcast = y is not None and build.chance(0.25)  # the same pixel of y with every pixel of x
    gap = [0] if len(loops) == 4 or build.chance(0.7) else [build.pick(0, len(loops))]
    positions = [i for i in range(4) if i not in gap][: len(loops)] if build.chance(0.4) else list(range(len(loops)))
    for i, loop in zip(positions, loops):
        fields[f"n{i}"] = loop.count
        if loop.kind == "channel":
            fields |= {"idx_loop": i, f"x_dc{i}": lanes * _size(x.dtype)}
            if y is not None:
                fields[f"y_dc{i}"] = lanes * _size(y.dtype)
        else:
            fields |= {f"x_dp{i}": steps[loop.kind], f"y_dp{i}": 0 if broadcast else steps[loop.kind]}
    return fields


def _output(build: Builder, emitted: list[_Loop], elements: int) -> tuple[Tensor, dict[str, int]]:
    """A tensor for the emitted beats, one pixel for each combination of pixel loops, and the output loops.

    Pixels that share a channel block follow each other in the order in which they are emitted.
    """
    lanes = build.config.vector_lanes
    dtype = DType.B32 if build.chance(0.35) else DType.I8
    pixels = int(np.prod([loop.count for loop in emitted if loop.kind != "channel"]))
    out = build.chip.tensor(pixels=pixels, channels=elements * _size(dtype), dtype=dtype)
    loops = [loop for loop in emitted if loop.count > 1 or build.chance(0.5)]
    merged = [[loop.kind == "channel", loop.count] for loop in loops]
    if build.chance(0.5):
        for (i, one), (_, two) in list(pairwise(enumerate(merged)))[:1]:
            if not one[0] and not two[0]:
                merged[i : i + 2] = [[False, one[1] * two[1]]]
    fields = out.view("o_", typed=True)
    step = 1
    for i, (channel, count) in enumerate(merged):
        fields[f"m{i}"] = count
        if channel:
            fields[f"o_dc{i}"] = lanes * _size(dtype)
        else:
            fields[f"o_dp{i}"] = step
            step *= count
    if build.chance(0.2) and "m0" in fields and not merged[0][0]:  # mirrored
        fields["o_p0"] += fields["m0"] - 1
        fields["o_dp0"] = -1
    return out, fields
