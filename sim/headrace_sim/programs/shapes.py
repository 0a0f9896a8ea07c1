"""Random shapes and arithmetic of MAC commands."""

from dataclasses import dataclass

from headrace.config import NpuConfig, Precision

from .allocate import Tensor
from .builder import Builder
from .footprint import FOLDED_PIXEL

__all__ = ["Arithmetic", "Shape", "Tiling", "random_chunks", "random_shape", "random_tiling"]

_GROUP = 32  # codes of a group with scales
_INT32 = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What a MAC command multiplies and how it reduces."""

    mode: Precision = Precision.A8W8
    fold: bool = False
    depthwise: bool = False
    scales: bool = False
    act_unsigned: bool = False
    weight_unsigned: bool = False

    @property
    def fields(self) -> dict[str, int]:
        """The fields of the MAC command."""
        flags = ("fold", "depthwise", "scales", "act_unsigned", "weight_unsigned")
        return {"mode": self.mode} | {flag: int(getattr(self, flag)) for flag in flags}

    @property
    def offsets(self) -> bool:
        """Whether sd, sm and kc of the weights matter."""
        return self.scales and self.mode != Precision.A8W8

    def __str__(self) -> str:
        return " ".join([self.mode.name, *(k for k, v in self.fields.items() if k != "mode" and v)])


@dataclass(frozen=True)
class Shape:
    """A convolution as the MAC command sees it."""

    arithmetic: Arithmetic
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
    n_tiles: int
    group_tiles: int
    group_planes: int
    channels: int  # output channels stored

    @property
    def pixels(self) -> int:
        """Output pixels."""
        return self.out_h * self.out_w

    @property
    def planes(self) -> int:
        """Planes of the input tensor that are read."""
        if self.arithmetic.depthwise:
            return self.n_tiles
        groups = -(-self.n_tiles // self.group_tiles) if self.group_tiles else 1
        return (groups - 1) * self.group_planes + self.cw

    def words(self, config: NpuConfig) -> int:
        """P: words of activations reduced over (of a channel in the depthwise mode)."""
        if self.arithmetic.fold:
            return self.kh * -(-self.kw // (config.word_bytes // FOLDED_PIXEL))
        return self.kh * self.kw * self.cw

    def entries(self, config: NpuConfig) -> int:
        """E: weight entries of an n tile."""
        if self.arithmetic.depthwise:
            return self.kh
        return -(-self.words(config) // self.arithmetic.mode.words)

    def tiles(self, config: NpuConfig) -> int:
        """Groups of C output channels."""
        return self.n_tiles * (config.halves if self.arithmetic.depthwise else 1)

    def terms(self, config: NpuConfig) -> int:
        """Products an accumulator sums."""
        if self.arithmetic.depthwise:
            return self.kh * self.kw
        return self.words(config) * config.word_bytes * (2 if self.arithmetic.mode == Precision.A4W4 else 1)

    def bound(self, config: NpuConfig, *, sd: int, kc: int) -> int:
        """No accumulator grows beyond this with weight scales up to `sd` and offset shifts up to `kc`."""
        a = self.arithmetic
        act = (16 if a.mode == Precision.A4W4 else 256) >> (0 if a.act_unsigned else 1)
        weight = (256 if a.mode == Precision.A8W8 else 16) >> (0 if a.weight_unsigned else 1)
        if a.offsets:
            groups = -(-self.terms(config) // _GROUP)
            return groups * (_GROUP * act * (sd * weight + (128 << kc)) + 1)
        return self.terms(config) * (act * weight * (8 if a.scales else 1) + 1)

    def scale_limits(self, config: NpuConfig) -> tuple[int, int]:
        """Largest sd and kc with which no accumulator overflows, whatever the codes and offsets."""
        sd = next(sd for sd in range(255, -1, -1) if self.bound(config, sd=sd, kc=0) < _INT32)
        kc = max(kc for kc in range(8) if self.bound(config, sd=sd, kc=kc) < _INT32)
        return sd, kc


@dataclass(frozen=True)
class Tiling:
    """Tile loops of one MAC command over `m_count` pixels; `full`: its rows are exactly the pixels."""

    ilv: int
    m_tiles: int
    t_count: int
    t_last: int
    m_count: int
    full: bool

    @property
    def fields(self) -> dict[str, int]:
        """The fields that MAC and EPILOGUE share."""
        return {name: getattr(self, name) for name in ("ilv", "m_tiles", "t_count", "t_last", "m_count")}


def _arithmetic(build: Builder, source: Tensor | None) -> Arithmetic:
    config, chance = build.config, build.chance
    act_unsigned, weight_unsigned = chance(0.25), chance(0.25)
    shifted = source is not None and source.shifted
    if config.depthwise_taps and chance(0.05 if shifted else 0.25):
        return Arithmetic(depthwise=True, act_unsigned=act_unsigned, weight_unsigned=weight_unsigned)
    mode = Precision(int(build.rng.choice(3, p=[0.4, 0.35, 0.25])))
    scales = config.scaled(mode) and chance(0.9 if shifted else 0.5)
    fold = not scales and source is None and config.word_bytes % FOLDED_PIXEL == 0 and chance(0.35)
    return Arithmetic(mode=mode, fold=fold, scales=scales, act_unsigned=act_unsigned, weight_unsigned=weight_unsigned)


def random_shape(build: Builder, source: Tensor | None) -> Shape:
    """A convolution that suits the machine and, if there is one, the source tensor."""
    config, pick, chance = build.config, build.pick, build.chance
    while True:
        arithmetic = _arithmetic(build, source)
        kh, kw = (pick(1, 3), pick(1, 3)) if chance(0.8) else (pick(1, 5), pick(1, 5))
        if arithmetic.depthwise:
            kw = pick(1, config.depthwise_taps)
        elif chance(0.25):
            kh = kw = 1
        stride = (pick(1, 2), pick(1, 2)) if chance(0.7) else (pick(1, 3), pick(1, 3))
        dilation = (1, 1) if chance(0.7) else (pick(1, 3), 1 if arithmetic.fold else pick(1, 3))
        if arithmetic.depthwise and chance(0.6):  # rows that lie next to each other
            stride, dilation = (stride[0], 1), (dilation[0], 1)
        if source is not None:
            in_w = pick(1, min(12, source.pixels))
            in_h = source.pixels // in_w
        else:
            in_h, in_w = pick(1, 9), pick(1, 12 if chance(0.2) else 9)
        pad = (pick(-1, kh), pick(-1, kw)) if chance(0.7) else (0, 0)
        out_h = (in_h + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1 + pick(-1, 1)
        out_w = (in_w + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1 + pick(-1, 1)
        if not (1 <= out_h <= 12 and 1 <= out_w <= 12):
            continue
        n_tiles = pick(1, 3)
        cw, group_tiles, group_planes = 1, 0, 0
        if not arithmetic.depthwise:
            cw = 1 if arithmetic.fold else pick(1, 3)
            if chance(0.3):
                group_tiles, group_planes = pick(1, n_tiles), 0 if arithmetic.fold else pick(0, cw + 1)
        tile = config.word_bytes if arithmetic.depthwise else config.cols
        channels = pick(max(1, (n_tiles - 1) * tile), n_tiles * tile) if chance(0.5) else n_tiles * tile
        shape = Shape(
            arithmetic, in_h, in_w, kh, kw, stride, dilation, pad, out_h, out_w, cw,
            n_tiles, group_tiles, group_planes, channels,
        )  # fmt: skip
        work = shape.words(config) * n_tiles * shape.pixels * 2 // config.rows
        if (source is None or shape.planes <= source.planes) and work <= 20000:
            return shape


def random_tiling(build: Builder, shape: Shape, m_count: int) -> Tiling:
    """Tiles for so many pixels, within the accumulators that the arithmetic can use."""
    config, arithmetic = build.config, shape.arithmetic
    longest = config.accs
    if arithmetic.depthwise:
        longest = config.accs // config.halves
    elif arithmetic.scales:
        longest = config.scaled_accs
    ilv = build.pick(0, min(3, longest.bit_length() - 1)) if build.chance(0.4) else 0
    unit = 1 << ilv
    t_count = build.pick(1, longest // unit) * unit
    groups = -(-m_count // config.rows)
    m_tiles = -(-groups // t_count)
    t_last = groups - (m_tiles - 1) * t_count
    t_last += -t_last % unit
    if build.chance(0.1):
        t_last = t_count
    rows = ((m_tiles - 1) * t_count + t_last) * config.rows
    return Tiling(ilv, m_tiles, t_count, t_last, m_count, rows == m_count)


def random_chunks(build: Builder, shape: Shape) -> list[tuple[int, int]]:
    """First output row and pixels of each MAC command."""
    if shape.out_h == 1 or build.chance(0.5):
        return [(0, shape.pixels if build.chance(0.8) else build.pick(1, shape.pixels))]
    cuts = sorted({0, *(int(c) for c in build.rng.integers(1, shape.out_h, build.pick(1, 2)))})
    ends = [*cuts[1:], shape.out_h]
    return [(first, (end - first) * shape.out_w) for first, end in zip(cuts, ends)]
