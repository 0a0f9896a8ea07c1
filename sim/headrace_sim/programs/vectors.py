"""Random VECTOR passes: elementwise over one or two streams, and reductions, with random loops and layouts."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from headrace.isa import DType, MemIndex

from .allocate import NoRoom, Tensor
from .builder import Builder
from .chains import BOUNDS, Interval, random_chain
from .patches import emit_patched
from .streams import SOURCES, beat_bytes, stream_bytes, stream_elements
from .transfers import load_tensor, store_tensor

__all__ = ["random_sink", "random_type", "vector"]


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
    elements = stream_elements(x.dtype, x.channels, lanes)
    if not elements:
        raise NoRoom
    blocks = -(-elements // lanes) if elements % lanes == 0 or build.chance(0.7) else max(1, elements // lanes)
    gather = build.pick(0, min(5, x.pixels.bit_length() - 1)) if build.chance(0.3) else 0
    loops = _loops(build, replace(x, pixels=x.pixels - (1 << gather) + 1), blocks)
    repeats, emitted = _split(loops)
    y = _like(build, x, elements) if gather or build.chance(0.5) else None
    across = build.chance(0.4)
    row = _reduces_rows(loops) and build.chance(0.7)
    if row:
        repeats = (int(np.prod(repeats)),)
    chain = random_chain(
        build.rng,
        length=build.chain_length(build.config.columns + 1),
        blocks=blocks,
        lanes=lanes,
        x=BOUNDS[x.dtype],
        y=BOUNDS[y.dtype] if y is not None else Interval(0, 0),
        repeats=(*repeats, *((1,) if across and build.chance(0.5) else ())),
        across=across,
        row=row,
        sums=build.config.float_sum,
        tables=build.chance(0.5) and build.has_tables,
    )
    idx_base = build.pick(0, 3) if build.chance(0.3) else 0
    build.new_unit()
    placed = build.place(chain, idx_base=idx_base, beats=int(np.prod([loop.count for loop in loops])))
    partial = elements < blocks * lanes or build.chance(0.2)
    channels = min(elements, blocks * lanes) if partial else 0
    out, out_fields = _output(build, emitted, blocks * lanes if chain.across else channels or blocks * lanes)
    if build.chance(0.1) and out.pixels <= 36:
        build.fill(out)  # so that it can be compared when only its activation shifts are written
        out = replace(out, shifted=True)
        out_fields["o_type"] = DType.KA
    elif any(loop.kind == "channel" and loop.reduced for loop in loops):
        build.fill(out)
    fields = _input_fields(build, loops, x, y) | out_fields | placed.fields | {"x_gather": gather}
    if not any(stage.context.get("mem_index") == MemIndex.IDX for stage in chain.stages):
        fields["idx_step"] = build.pick(0, (1 << 12) - 1)
    fields |= {"idx_base": idx_base, "channels": channels} | random_sink(build, out.dtype)
    emit_patched(build, "VECTOR", fields, chain=placed)
    kinds = ", ".join(f"{loop.kind} {loop.count}{' reduced' if loop.reduced else ''}" for loop in loops)
    sink = DType(fields["o_type"]).name
    streams = f"{x.dtype.name}{f' and {y.dtype.name}' if y else ''}{', gathered' if gather else ''}"
    build.layer.description = f"vector {streams} over {kinds} to {sink}"
    build.new_unit()
    store_tensor(build, out)
    build.layer.results.append(out)


def random_type(build: Builder) -> DType:
    """A type of stream elements: often I8."""
    return SOURCES[build.pick(0, len(SOURCES) - 1)] if build.chance(0.7) else DType.I8


def random_sink(build: Builder, dtype: DType) -> dict[str, int]:
    """Zero point and limits for a sink of that type."""
    low, high = (-8, 7) if dtype == DType.I4 else (0, -1) if dtype == DType.U8 else (-128, 127)
    if build.chance(0.4):
        low, high = sorted((build.pick(-128, 127), build.pick(-128, 127)))
        if dtype == DType.U8:  # limits are taken modulo 256
            low, high = sorted((low, high), key=lambda v: v % 256)
    return {"zp": build.pick(-128, 127) if build.chance(0.6) else 0, "lo": low, "hi": high}


def _stream(build: Builder) -> Tensor:
    dtype, lanes = random_type(build), build.config.vector_lanes
    elements = build.pick(1, 4 * lanes)
    pixels = build.pick(1, 36)
    if build.chance(0.15):  # longer than the longest pass between epilogues
        pixels, elements = build.pick(100, 400), build.pick(1, 2 * lanes)
    tensor = build.chip.tensor(pixels=pixels, channels=stream_bytes(dtype, elements, lanes), dtype=dtype)
    load_tensor(build, tensor)
    return tensor


def _like(build: Builder, x: Tensor, elements: int) -> Tensor:
    dtype = x.dtype if build.chance(0.5) else random_type(build)
    channels = stream_bytes(dtype, elements, build.config.vector_lanes)
    tensor = build.chip.tensor(pixels=x.pixels, channels=channels, dtype=dtype)
    load_tensor(build, tensor)
    return tensor


def _loops(build: Builder, x: Tensor, blocks: int) -> list[_Loop]:
    """Loops, innermost first, in random order; a prefix of them may be reduced."""
    pixels = x.pixels if build.chance(0.7) else build.pick(1, x.pixels)
    divisors = [d for d in range(1, pixels + 1) if pixels % d == 0]
    inner = int(build.rng.choice(divisors))
    counts = [inner, pixels // inner] if build.chance(0.6) else [pixels]
    loops = [_Loop("channel", blocks), *(_Loop(f"pixel{i}", count) for i, count in enumerate(counts))]
    order = build.rng.permutation(len(loops)) if build.chance(0.7) else np.arange(len(loops))
    loops = [loops[i] for i in order]
    if build.chance(0.5):
        prefix = [loop.kind for loop in loops].index("channel")
        reduced = build.pick(0, prefix if build.chance(0.6) else len(loops))
        loops = [_Loop(loop.kind, loop.count, i < reduced) for i, loop in enumerate(loops)]
    return loops


def _split(loops: list[_Loop]) -> tuple[tuple[int, ...], list[_Loop]]:
    return tuple(loop.count for loop in loops if loop.reduced), [loop for loop in loops if not loop.reduced]


def _reduces_rows(loops: list[_Loop]) -> bool:
    """Whether what is reduced are the loops up to that over channel blocks: rows."""
    last = [loop.kind for loop in loops].index("channel")
    return all(loop.reduced == (i <= last) for i, loop in enumerate(loops))


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
            fields |= {"idx_loop": i, f"x_dc{i}": beat_bytes(x.dtype, lanes)}
            if y is not None:
                fields[f"y_dc{i}"] = beat_bytes(y.dtype, lanes)
        else:
            fields |= {f"x_dp{i}": steps[loop.kind], f"y_dp{i}": 0 if broadcast else steps[loop.kind]}
    return fields


def _output(build: Builder, emitted: list[_Loop], elements: int) -> tuple[Tensor, dict[str, int]]:
    """A tensor for the emitted beats, one pixel for each combination of pixel loops, and the output loops.

    Pixels that share a channel block follow each other in the order in which they are emitted.
    """
    lanes = build.config.vector_lanes
    dtype = random_type(build)
    if all(loop.kind != "channel" for loop in emitted):
        elements = lanes  # of the last channel block
    pixels = int(np.prod([loop.count for loop in emitted if loop.kind != "channel"]))
    out = build.chip.tensor(pixels=pixels, channels=stream_bytes(dtype, elements, lanes), dtype=dtype)
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
            fields[f"o_dc{i}"] = beat_bytes(dtype, lanes)
        else:
            fields[f"o_dp{i}"] = step
            step *= count
    if build.chance(0.2) and "m0" in fields and not merged[0][0]:  # mirrored
        fields["o_p0"] += fields["m0"] - 1
        fields["o_dp0"] = -1
    return out, fields
