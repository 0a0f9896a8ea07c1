"""Random convolutions and matrix products: weights, MAC and EPILOGUE with every option of the loop nest."""

from dataclasses import dataclass
from itertools import pairwise

from headrace.isa import DType

from .allocate import NoRoom, Tensor
from .builder import Atom, Builder, PlacedChain
from .chains import Chain, Interval, convolution_chain, random_chain
from .footprint import FOLDED_PIXEL
from .operation import Operation
from .patches import patched, patched_weight
from .transfers import load_tensor, store_tensor

__all__ = ["convolution"]


@dataclass(frozen=True)
class _Shape:
    """A convolution as the MAC command sees it."""

    in_h: int
    in_w: int
    kh: int
    kw: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    out_h: int
    out_w: int
    cw: int
    fold: bool
    n_tiles: int
    group_tiles: int
    group_planes: int
    channels: int  # output channels stored

    @property
    def planes(self) -> int:
        """Planes of the input tensor that are read."""
        groups = -(-self.n_tiles // self.group_tiles) if self.group_tiles else 1
        return (groups - 1) * self.group_planes + self.cw

    def entries(self, word_bytes: int) -> int:
        """Weight entries of an n tile."""
        if self.fold:
            return self.kh * -(-self.kw // (word_bytes // FOLDED_PIXEL))
        return self.kh * self.kw * self.cw


@dataclass(frozen=True)
class _Tiling:
    """Tile loops of one MAC command over `m_count` pixels."""

    ilv: int
    m_tiles: int
    t_count: int
    t_last: int
    m_count: int


def convolution(build: Builder, source: Tensor | None) -> None:
    """Append a convolution of `source` (or of a new input) to the layer.

    Raises:
        NoRoom: when something does not fit.
    """
    build.new_unit()
    shape = _shape(build, source)
    entries = shape.entries(build.config.word_bytes)
    tensor = _input(build, shape, source)
    dtype = DType.B32 if build.chance(0.2) else DType.I8
    pixels = shape.out_h * shape.out_w
    build.new_unit()
    out = build.chip.tensor(pixels=pixels, channels=shape.channels * (4 if dtype == DType.B32 else 1), dtype=dtype)
    residual = _residual(build, pixels, shape.channels) if build.chance(0.3) else None
    reduction = entries * build.config.word_bytes
    build.layer.description = (
        f"{'folded ' if shape.fold else ''}convolution {shape.in_h}x{shape.in_w} kernel {shape.kh}x{shape.kw} "
        f"stride {shape.stride} to {shape.out_h}x{shape.out_w}x{shape.channels} {dtype.name}"
        f"{' + residual' if residual else ''}"
    )
    idx_base = build.pick(0, 3) if build.chance(0.3) else 0
    chain = _chain(build, shape, reduction, dtype, residual)
    build.new_unit()
    placed = build.place(chain, idx_base=idx_base)
    if _longest_tile(build, placed.wraps) < 1:
        raise NoRoom
    chunks = _chunks(build, shape)
    if sum(count for _, count in chunks) < pixels or chain.reduction > 1 or build.chance(0.2):
        build.fill(out)
    _commands(build, shape, chunks, tensor, out, residual, placed, idx_base)
    build.new_unit()
    store_tensor(build, out)
    build.layer.results.append(out)


def _shape(build: Builder, source: Tensor | None) -> _Shape:
    config, pick, chance = build.config, build.pick, build.chance
    while True:
        fold = source is None and config.word_bytes % FOLDED_PIXEL == 0 and chance(0.2)
        kh, kw = (pick(1, 3), pick(1, 3)) if chance(0.8) else (pick(1, 5), pick(1, 5))
        if chance(0.25):
            kh = kw = 1
        stride = (pick(1, 2), pick(1, 2)) if chance(0.7) else (pick(1, 3), pick(1, 3))
        dilation = (1, 1) if chance(0.7) else (pick(1, 3), 1 if fold else pick(1, 3))
        if source is not None:
            in_w = pick(1, min(12, source.pixels))
            in_h = source.pixels // in_w
        else:
            in_h, in_w = pick(1, 9), pick(1, 9)
        pad = (pick(-1, kh), pick(-1, kw)) if chance(0.7) else (0, 0)
        out_h = (in_h + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1 + pick(-1, 1)
        out_w = (in_w + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1 + pick(-1, 1)
        if not (1 <= out_h <= 12 and 1 <= out_w <= 12):
            continue
        n_tiles = pick(1, 3)
        cw = 1 if fold else pick(1, 3)
        group_tiles, group_planes = (pick(1, n_tiles), 0 if fold else pick(0, cw + 1)) if chance(0.3) else (0, 0)
        cols = n_tiles * config.cols
        channels = pick(max(1, cols - config.cols), cols) if chance(0.5) else cols
        shape = _Shape(
            in_h, in_w, kh, kw, stride, dilation, pad, out_h, out_w, cw, fold,
            n_tiles, group_tiles, group_planes, channels,
        )  # fmt: skip
        work = shape.entries(config.word_bytes) * n_tiles * out_h * out_w * 2 // config.rows
        if (source is None or shape.planes <= source.planes) and work <= 20000:
            return shape


def _input(build: Builder, shape: _Shape, source: Tensor | None) -> Tensor:
    word_bytes = build.config.word_bytes
    if source is not None:
        build.fill(source, first=source.channels)
        return source
    if shape.fold:
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


def _residual(build: Builder, pixels: int, channels: int) -> Tensor:
    dtype = DType.B32 if build.chance(0.2) else DType.I8
    size = 4 if dtype == DType.B32 else 1
    residual = build.chip.tensor(pixels=pixels, channels=channels * size, dtype=dtype)
    load_tensor(build, residual)
    return residual


def _chain(build: Builder, shape: _Shape, reduction: int, dtype: DType, residual: Tensor | None) -> Chain:
    config = build.config
    blocks = shape.n_tiles * config.acc_beats
    if dtype == DType.B32 and build.chance(0.3):
        return Chain()
    if build.chance(0.6) and (residual is None or residual.dtype == DType.I8):
        return convolution_chain(
            build.rng,
            blocks=blocks,
            lanes=config.vector_lanes,
            bound=int(73 * 73 * reduction**0.5),
            residual=residual is not None,
            zero_point=build.pick(-20, 20),
        )
    y = Interval(0, 0)
    if residual is not None:
        y = Interval(-128, 127) if residual.dtype == DType.I8 else Interval(-(2**31), 2**31 - 1)
    accumulator = Interval(-(reduction << 14), reduction << 14)
    length = build.pick(1, config.columns + 2)
    repeats = (build.pick(1, 5),) if build.chance(0.15) else ()
    return random_chain(
        build.rng, length=length, blocks=blocks, lanes=config.vector_lanes, x=accumulator, y=y, repeats=repeats
    )


def _longest_tile(build: Builder, wraps: int) -> int:
    """Row groups a tile may have: the accumulators, and the gasket when passes wrap."""
    config = build.config
    return min(config.accs, config.gasket_beats // (config.rows * config.acc_beats)) if wraps else config.accs


def _tiling(build: Builder, m_count: int, wraps: int) -> _Tiling:
    longest = _longest_tile(build, wraps)
    ilv = build.pick(0, min(3, longest.bit_length() - 1)) if build.chance(0.4) else 0
    unit = 1 << ilv
    t_count = build.pick(1, longest // unit) * unit
    groups = -(-m_count // build.config.rows)
    m_tiles = -(-groups // t_count)
    t_last = groups - (m_tiles - 1) * t_count
    t_last += -t_last % unit
    if build.chance(0.1):
        t_last = t_count
    return _Tiling(ilv, m_tiles, t_count, t_last, m_count)


def _chunks(build: Builder, shape: _Shape) -> list[tuple[int, int]]:
    """First output row and pixels of each MAC command."""
    if shape.out_h == 1 or build.chance(0.5):
        pixels = shape.out_h * shape.out_w
        return [(0, pixels if build.chance(0.8) else build.pick(1, pixels))]
    cuts = sorted({0, *(int(c) for c in build.rng.integers(1, shape.out_h, build.pick(1, 2)))})
    ends = [*cuts[1:], shape.out_h]
    return [(first, (end - first) * shape.out_w) for first, end in zip(cuts, ends)]


def _commands(
    build: Builder,
    shape: _Shape,
    chunks: list[tuple[int, int]],
    tensor: Tensor,
    out: Tensor,
    residual: Tensor | None,
    placed: PlacedChain,
    idx_base: int,
) -> None:
    """WEIGHT, MAC and EPILOGUE of each chunk of output rows; weights held from chunk to chunk if they fit."""
    config = build.config
    entries = shape.entries(config.word_bytes)
    total = entries * shape.n_tiles
    tilings = [_tiling(build, pixels, placed.wraps) for _, pixels in chunks]
    hold = len(chunks) > 1 and total <= config.ring_entries and build.chance(0.7)
    tag = build.pick(0, 255)
    stored = build.chance(0.15)
    address = _stored_weights(build, shape) if stored else _weights(build, shape)
    sink = _sink(build)
    for number, ((first_row, _), tiling) in enumerate(zip(chunks, tilings)):
        last = number == len(chunks) - 1
        replay = hold or (entries <= config.ring_entries and build.chance(0.6))
        if tiling.m_tiles == 1 and not hold:
            replay = replay and build.chance(0.5)
        weights = []
        if not hold or number == 0:
            weights = _weight_commands(build, address, entries, shape.n_tiles, 1 if replay else tiling.m_tiles, tag)
        mac = _mac(build, shape, tensor, tiling, first_row, tag) | {
            "replay": int(replay),
            "hold": int(hold and not last),
        }
        epilogue = _epilogue(shape, out, residual, tiling, first_row, placed, idx_base) | sink
        atom = Atom(
            [*patched(build, "MAC", mac), build.make("EPILOGUE", epilogue, columns=placed.columns)],
            weights,
            holds=hold and not last,
            stored=stored,
        )
        build.layer.atoms.append(atom)
        if not hold and not stored and build.chance(0.5):
            address = _weights(build, shape)


def _weight_bytes(build: Builder, shape: _Shape) -> int:
    config = build.config
    return shape.n_tiles * shape.entries(config.word_bytes) * config.entry_beats * config.axi_bytes


def _weights(build: Builder, shape: _Shape) -> int:
    """Address of random entries of all n tiles."""
    return build.ddr.place_input(_weight_bytes(build, shape), align=build.config.axi_bytes)


def _stored_weights(build: Builder, shape: _Shape) -> int:
    """As `_weights`, but the machine writes them: activations that become weights, as in attention."""
    size = _weight_bytes(build, shape)
    channels = build.pick(1, 2 * build.config.word_bytes)
    tensor = build.chip.tensor(pixels=-(-size // channels), channels=channels)
    load_tensor(build, tensor)
    address = build.ddr.place_output(size, align=build.config.axi_bytes)
    build.emit("STORE", tensor.view() | {"ddr": address, "n0": size, "pix_bytes": channels})
    return address


def _weight_commands(
    build: Builder, address: int, entries: int, n_tiles: int, repeat: int, tag: int
) -> list[Operation]:
    """WEIGHT commands, at most a queue of them, that push what the MAC consumes, in order."""
    config = build.config
    entry_bytes = config.entry_beats * config.axi_bytes
    if repeat > 1 and n_tiles > config.queue_depth:
        raise NoRoom
    pieces = [(n * entries, entries, repeat) for n in range(n_tiles)]
    if repeat == 1:
        total = entries * n_tiles
        inner = build.rng.integers(1, total, build.pick(0, config.queue_depth - 1)) if total > 1 else ()
        cuts = [0, *sorted({int(c) for c in inner}), total]
        pieces = [(a, b - a, 1) for a, b in pairwise(cuts)]
    commands: list[Operation] = []
    for first, count, times in pieces:
        fields = {"ddr": address + first * entry_bytes, "entries": count, "repeat": times, "tag": tag}
        commands += patched_weight(build, fields)
    return commands


def _mac(build: Builder, shape: _Shape, tensor: Tensor, tiling: _Tiling, first_row: int, tag: int) -> dict[str, int]:
    skip = build.pick(0, tensor.planes - shape.planes)
    view = tensor.view("in_") | {"in_c0": 0}
    if shape.fold:
        per_word = build.config.word_bytes // FOLDED_PIXEL
        slack = tensor.pixels * per_word - shape.in_h * shape.in_w
        view["in_p0"] = tensor.p0 * per_word + build.pick(0, slack)
    elif build.chance(0.5):
        view["in_c0"] = skip * build.config.word_bytes
    else:
        view["in_base"] = tensor.base + skip * tensor.plane
    return view | {
        "fold": int(shape.fold), "ilv": tiling.ilv, "pad_value": build.pick(0, 255),
        "in_h": shape.in_h, "in_w": shape.in_w, "out_w": shape.out_w, "m_count": tiling.m_count,
        "kh": shape.kh, "kw": shape.kw, "cw": shape.cw, "stride_y": shape.stride[0], "stride_x": shape.stride[1],
        "dil_y": shape.dilation[0], "dil_x": shape.dilation[1],
        "pad_top": shape.pad[0] - first_row * shape.stride[0], "pad_left": shape.pad[1], "n_tiles": shape.n_tiles,
        "m_tiles": tiling.m_tiles, "t_count": tiling.t_count, "t_last": tiling.t_last, "group_tiles": shape.group_tiles,
        "group_planes": shape.group_planes, "tag": tag,
    }  # fmt: skip


def _sink(build: Builder) -> dict[str, int]:
    low, high = (-128, 127) if build.chance(0.6) else sorted((build.pick(-128, 127), build.pick(-128, 127)))
    return {"zp": build.pick(-128, 127) if build.chance(0.5) else 0, "lo": low, "hi": high}


def _epilogue(
    shape: _Shape,
    out: Tensor,
    residual: Tensor | None,
    tiling: _Tiling,
    first_row: int,
    placed: PlacedChain,
    idx_base: int,
) -> dict[str, int]:
    first = first_row * shape.out_w
    fields = out.view("out_", typed=True) | {
        "ilv": tiling.ilv, "n_tiles": shape.n_tiles, "m_tiles": tiling.m_tiles, "m_count": tiling.m_count,
        "t_count": tiling.t_count, "t_last": tiling.t_last, "ctx": placed.ctx, "wraps": placed.wraps,
        "channels": shape.channels, "idx_base": idx_base,
    }  # fmt: skip
    fields["out_p0"] += first
    if residual is not None:
        fields |= residual.view("res_", typed=True) | {"res_enable": 1}
        fields["res_p0"] += first
    return fields
