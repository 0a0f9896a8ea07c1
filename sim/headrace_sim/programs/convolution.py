"""Random convolutions and matrix products: weights, MAC and EPILOGUE with every option of the loop nest."""

from dataclasses import dataclass, replace

from headrace.config import NpuConfig, Precision
from headrace.isa import DType

from .allocate import Tensor
from .builder import Atom, Builder, PlacedChain
from .chains import BOUNDS, Chain, Interval, convolution_chain, random_chain
from .footprint import FOLDED_PIXEL
from .patches import patched
from .shapes import Shape, Tiling, random_chunks, random_shape, random_tiling
from .shifts import write_shifts
from .streams import beat_bytes
from .transfers import load_tensor, store_tensor
from .vectors import random_sink, random_type
from .weights import computed_entries, load_offset_shifts, random_entries, weight_commands

__all__ = ["convolution"]


@dataclass(frozen=True)
class _Layer:
    """A convolution with everything its commands need."""

    shape: Shape
    tensor: Tensor
    out: Tensor
    residual: Tensor | None
    residual_row: bool
    placed: PlacedChain
    idx_base: int
    kc_base: int
    sink: dict[str, int]


def convolution(build: Builder, source: Tensor | None) -> None:
    """Append a convolution of `source` (or of a new input) to the layer.

    Raises:
        NoRoom: when something does not fit.
    """
    build.new_unit()
    config = build.config
    shape = random_shape(build, source)
    tensor = _input(build, shape, source)
    if shape.arithmetic.scales and build.chance(0.3 if tensor.shifted else 0.8):
        write_shifts(build, tensor)
    build.new_unit()
    sink_type, residual_type = _type(build, shape), _type(build, shape)
    chunks = random_chunks(build, shape)
    tilings = [random_tiling(build, shape, pixels) for _, pixels in chunks]
    across = config.cols % config.vector_lanes == 0 and shape.channels == shape.tiles(config) * config.cols
    idx_base = build.pick(0, 3) if build.chance(0.3) else 0
    has_residual = build.chance(0.3)
    chain = _chain(build, shape, sink_type, residual_type if has_residual else None, across=across)
    out = build.chip.tensor(pixels=shape.pixels, channels=beat_bytes(sink_type, shape.channels), dtype=sink_type)
    residual = _residual(build, shape, residual_type) if has_residual else None
    residual_row = has_residual and build.chance(0.3)
    build.new_unit()
    longest = max(max(t.t_count, t.t_last) for t in tilings) * (config.halves if shape.arithmetic.depthwise else 1)
    placed = build.place(chain, idx_base=idx_base, beats=longest * config.rows * config.acc_beats)
    kc_base = load_offset_shifts(build, shape)
    sink = random_sink(build, sink_type)
    shifts = sink_type in (DType.I8, DType.U8) and build.chance(0.08)  # only activation shifts are written
    if shifts or sum(count for _, count in chunks) < shape.pixels or chain.reduction > 1 or build.chance(0.2):
        build.fill(out)
    if shifts:
        sink |= {"out_type": DType.KA}
        out = replace(out, shifted=True)
    build.layer.description = (
        f"{shape.arithmetic} convolution {shape.in_h}x{shape.in_w} kernel {shape.kh}x{shape.kw} "
        f"stride {shape.stride} to {shape.out_h}x{shape.out_w}x{shape.channels} {'KA' if shifts else sink_type.name}"
        f"{f' + residual {residual_type.name}' if residual else ''}"
    )
    _commands(
        build, _Layer(shape, tensor, out, residual, residual_row, placed, idx_base, kc_base, sink), chunks, tilings
    )
    build.new_unit()
    store_tensor(build, out)
    build.layer.results.append(out)


def _type(build: Builder, shape: Shape) -> DType:
    """An element type of which every EPILOGUE beat starts in a byte of its own."""
    config = build.config
    dtype = random_type(build)
    whole = config.cols % 2 == 0 or shape.tiles(config) == 1
    whole = whole and (config.vector_lanes % 2 == 0 or config.acc_beats == 1)
    return dtype if dtype != DType.I4 or whole else DType.U8


def _input(build: Builder, shape: Shape, source: Tensor | None) -> Tensor:
    word_bytes = build.config.word_bytes
    if source is not None:
        build.fill(source, first=source.channels)
        return source
    if shape.arithmetic.fold:
        per_word = word_bytes // FOLDED_PIXEL
        tensor = build.chip.tensor(pixels=-(-shape.in_h * shape.in_w // per_word), channels=word_bytes, aligned=True)
        load_tensor(build, tensor)
        return tensor
    slack = build.pick(0, word_bytes - 1) if build.chance(0.5) else 0
    planes = shape.planes + int(build.chance(0.3))
    tensor = build.chip.tensor(pixels=shape.in_h * shape.in_w, channels=planes * word_bytes - slack, aligned=True)
    build.fill(tensor, first=tensor.channels)
    load_tensor(build, tensor)
    return tensor


def _residual(build: Builder, shape: Shape, dtype: DType) -> Tensor:
    residual = build.chip.tensor(pixels=shape.pixels, channels=beat_bytes(dtype, shape.channels), dtype=dtype)
    load_tensor(build, residual)
    return residual


def _chain(build: Builder, shape: Shape, sink: DType, residual: DType | None, *, across: bool) -> Chain:
    config = build.config
    blocks = shape.tiles(config) * config.acc_beats
    if sink == DType.B32 and build.chance(0.3):
        return Chain()
    fixed = residual is None or residual in (DType.I8, DType.U8, DType.I4) or sink == residual == DType.BF16
    if build.chance(0.6) and fixed:
        return convolution_chain(
            build.rng,
            blocks=blocks,
            lanes=config.vector_lanes,
            bound=_typical(shape, config),
            sink=sink,
            residual=residual,
            zero_point=build.pick(-20, 20),
        )
    row = build.chance(0.2)
    repeats = (config.acc_beats if row else build.pick(1, 5),) if build.chance(0.3 if across else 0.15) else ()
    limit = shape.bound(config, sd=255, kc=7)
    accumulator = Interval(max(-limit, -(2**31)), min(limit, 2**31 - 1))
    return random_chain(
        build.rng,
        length=build.chain_length(config.columns + 2),
        blocks=blocks,
        lanes=config.vector_lanes,
        x=accumulator,
        y=Interval(0, 0) if residual is None else BOUNDS[residual],
        repeats=repeats,
        across=across,
        row=row,
        sums=config.float_sum,
        tables=build.has_tables and build.chance(0.3),
    )


def _typical(shape: Shape, config: NpuConfig) -> int:
    """How large accumulators of random codes are."""
    act = 5 if shape.arithmetic.mode == Precision.A4W4 else 73
    weight = 73 if shape.arithmetic.mode == Precision.A8W8 else 5
    scale = 128 if shape.arithmetic.offsets else 8 if shape.arithmetic.scales else 1
    return int(act * weight * scale * shape.terms(config) ** 0.5)


def _commands(build: Builder, layer: _Layer, chunks: list[tuple[int, int]], tilings: list[Tiling]) -> None:
    """WEIGHT, MAC and EPILOGUE of each chunk of output rows; weights held from chunk to chunk if they fit."""
    config, shape = build.config, layer.shape
    stored = build.chance(0.15)
    entries = computed_entries(build, shape) if stored else random_entries(build, shape)
    hold = len(chunks) > 1 and entries.count <= config.ring_entries and build.chance(0.7)
    tag = build.pick(0, 255)
    for number, ((first_row, _), tiling) in enumerate(zip(chunks, tilings)):
        last = number == len(chunks) - 1
        replay = hold or (entries.tile <= config.ring_entries and build.chance(0.6))
        if tiling.m_tiles == 1 and not hold:
            replay = replay and build.chance(0.5)
        weights = []
        if not hold or number == 0:
            weights = weight_commands(build, entries, 1 if replay else tiling.m_tiles, tag)
        mac = _mac(build, layer, tiling, first_row) | {
            "tag": tag,
            "replay": int(replay),
            "hold": int(hold and not last),
        }
        epilogue = _epilogue(layer, tiling, first_row)
        if shape.channels == shape.tiles(config) * config.cols and build.chance(0.3):
            epilogue["channels"] = 0  # all
        drain = build.make("EPILOGUE", epilogue, chain=layer.placed)
        atom = Atom([*patched(build, "MAC", mac), drain], weights, holds=hold and not last, stored=stored)
        build.layer.atoms.append(atom)
        if not hold and not stored and build.chance(0.5):
            entries = random_entries(build, shape)


def _mac(build: Builder, layer: _Layer, tiling: Tiling, first_row: int) -> dict[str, int]:
    shape, tensor = layer.shape, layer.tensor
    skip = build.pick(0, tensor.planes - shape.planes)
    view = tensor.view("in_") | {"in_c0": 0}
    if shape.arithmetic.fold:
        per_word = build.config.word_bytes // FOLDED_PIXEL
        slack = tensor.pixels * per_word - shape.in_h * shape.in_w
        view["in_p0"] = tensor.p0 * per_word + build.pick(0, slack)
    elif build.chance(0.5):
        view["in_c0"] = skip * build.config.word_bytes
    else:
        view["in_base"] = tensor.base + skip * tensor.plane
    if build.chance(0.1):
        view["in_c0"] += build.pick(0, build.config.word_bytes - 1)  # without effect: whole words are read
    return view | shape.arithmetic.fields | tiling.fields | {
        "pad_value": build.pick(0, 255), "in_h": shape.in_h, "in_w": shape.in_w, "out_w": shape.out_w,
        "kh": shape.kh, "kw": shape.kw, "cw": shape.cw, "stride_y": shape.stride[0], "stride_x": shape.stride[1],
        "dil_y": shape.dilation[0], "dil_x": shape.dilation[1],
        "pad_top": shape.pad[0] - first_row * shape.stride[0], "pad_left": shape.pad[1], "n_tiles": shape.n_tiles,
        "group_tiles": shape.group_tiles, "group_planes": shape.group_planes, "kc_base": layer.kc_base,
    }  # fmt: skip


def _epilogue(layer: _Layer, tiling: Tiling, first_row: int) -> dict[str, int]:
    shape = layer.shape
    first = first_row * shape.out_w
    fields = layer.out.view("out_", typed=True) | tiling.fields | layer.placed.fields | layer.sink
    fields |= {"n_tiles": shape.n_tiles, "channels": shape.channels, "idx_base": layer.idx_base}
    fields["depthwise"] = int(shape.arithmetic.depthwise)
    fields["out_p0"] += first
    if layer.residual is not None:
        fields |= layer.residual.view("res_", typed=True) | {"res_enable": 1, "res_row": int(layer.residual_row)}
        fields["res_p0"] += first
    return fields
