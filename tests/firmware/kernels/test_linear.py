"""Dynamic quantisation and linear layers with group scales on the machine equal the rules, step by step in numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace.isa import DType, Engine
from headrace_host.compiler.layout import View
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.operands import Location
from headrace_host.device import Device, GoldenDevice, RunStats, open_device
from headrace_host.errors import CompileError
from headrace_host.kernels.group_weights import GroupWeights, from_q4_1
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.linear import Linear, Rows
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import quantise_groups
from headrace_sim.programs.machines import find

F = np.float32
Floats = NDArray[np.float32]

SMALL = ["tiny", "odd", "thin", "five", "scaled"]
"""L = 2, 2, 3, 5, 2."""


def wide(name: str) -> NpuConfig:
    """A machine by name with the columns that the passes need."""
    config = find(name)
    return config if config.columns >= 7 else replace(config, name=f"{name}-wide", columns=7)


def bf16(values: NDArray[np.floating]) -> Floats:
    """Rounded to bf16, halves to even; no NaN."""
    bits = values.astype(F).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(F)


def up(value: np.float32) -> np.float32:
    bits = int(np.float32(value).view(np.uint32))
    return np.uint32((bits + 0xFFFF) & 0xFFFF0000).view(F)


def recip(value: np.float32) -> np.float32:
    """Between 33 points of 1 / m, 1 <= m <= 2, in 65,536ths, on straight lines of 256 steps."""
    fraction, exponent = np.frexp(value)
    interval, rest = divmod(int((float(fraction) * 2 - 1) * 8192), 256)
    left, right = (round(65536 / (1 + j / 32)) for j in (interval, interval + 1))
    return np.ldexp(F(left * 256 - (left - right) * rest), -24 - int(exponent) + 1)


@dataclass
class Quantised:
    codes: NDArray[np.int8]
    shifts: NDArray[np.int64]
    scales: Floats


def quantise(rows: Floats) -> Quantised:
    """The rule for every row and group on its own."""
    codes = np.zeros(rows.shape, np.int8)
    shifts = np.zeros((len(rows), rows.shape[1] // 32), np.int64)
    scales = np.zeros(len(rows), F)
    for i, row in enumerate(rows):
        a = max(F(np.abs(row).max()), F(1e-12))
        scales[i] = up(a / F(127))
        for g in range(shifts.shape[1]):
            group = row[32 * g : 32 * g + 32]
            largest = float(np.abs(group).max())
            ka = max(j for j in range(8) if largest * 2.0**j <= float(a))
            factor = recip(scales[i]) * F(2.0**ka)
            codes[i, 32 * g : 32 * g + 32] = np.clip(np.rint(group * factor), -127, 127).astype(np.int8)
            shifts[i, g] = ka
    return Quantised(codes, shifts, scales)


def linear(x: Quantised, w: GroupWeights) -> Floats:
    """Integers exactly, then fp32 step by step."""
    assert w.groups.sd is not None and w.groups.sm is not None and w.groups.kc is not None
    total = np.zeros((len(x.codes), len(w.codes)), np.int64)
    for g in range(x.shifts.shape[1]):
        part = slice(32 * g, 32 * g + 32)
        a, q = x.codes[:, part].astype(np.int64), w.codes[:, part].astype(np.int64)
        offset = w.groups.sm[:, g].astype(np.int64) * a.sum(1, keepdims=True) << w.groups.kc.astype(np.int64)
        value, ka = w.groups.sd[:, g].astype(np.int64) * (a @ q.T) + offset, x.shifts[:, g, None]
        total += np.where(ka > 0, (value + (1 << ka >> 1)) >> ka, value)
    assert np.abs(total).max() < 2**31
    return bf16(total.astype(F) * (x.scales[:, None] * w.scale))


def rows_of(kind: str, rows: int, channels: int, rng: np.random.Generator) -> Floats:
    x = rng.standard_normal((rows, channels))
    if kind == "outliers":
        x[:, 5] *= 1000
        x[0, 32:64] *= 1e-3
    elif kind == "zeros":
        x[0] = 0
        x[1, 32:64] = 0
        x[2, :-1] = 0
    elif kind == "tiny":
        x *= 10.0 ** rng.integers(-39, -10, (rows, 1))
        x[:, 32:64] *= 1e-2
    elif kind == "huge":
        x *= 10.0 ** rng.integers(30, 38, (rows, 1))
    elif kind == "equal":
        x[:] = x[:, :1]
    elif kind == "powers":
        x = np.sign(x) * 2.0 ** rng.integers(-12, 12, x.shape)
    return bf16(x)


KINDS = ["normal", "outliers", "zeros", "tiny", "huge", "equal", "powers"]


def quantise_tensor(image: KernelImage, x: View, codes: View, scales: View) -> None:
    """Rows of bf16 to codes with activation shifts, and scales."""
    kinds = [(codes, DType.I8), (codes, DType.KA), (scales, DType.B32)]
    source, *results = (RowTensor(view=view, kind=kind, steps=((1, 0),)) for view, kind in [(x, DType.BF16), *kinds])
    emit_rows(image, quantise_groups(), {"x": source}, results, rows=(x.pixels,), elements=codes.channels)


class Bench:
    """Rows in DDR are quantised and, with weights, multiplied; codes, scales and products return to DDR."""

    def __init__(
        self, config: NpuConfig, rows: int, channels: int, weights: GroupWeights | None = None, *, again: bool = False
    ) -> None:
        """``again``: the rows are quantised once more at the end."""
        self.rows, self.channels, image = rows, channels, KernelImage(config)
        lanes = config.vector_lanes
        self.x = image.tensor("x", rows, 2 * channels, prefer=0)
        self.codes = image.tensor("codes", rows, channels, prefer=1)
        self.scales = image.tensor("scales", rows, 4 * lanes, prefer=0)
        self.filters = 0 if weights is None else len(weights.codes)
        views = [location.view for location in (self.x, self.codes, self.scales)]
        x, codes, scales = (view for view in views if view is not None)
        image.begin("quantise")
        image.load(self.x)
        quantise_tensor(image, x, codes, scales)
        if weights is not None:
            self.out = image.tensor("out", rows, 2 * self.filters, prefer=0)
            assert self.out.view is not None
            image.begin("linear")
            layer = Linear(image.memory, image.constants, image.image, "linear", weights, rows)
            layer.stream(rows)
            layer.multiply(Rows(codes=codes, scales=scales, out=self.out.view, count=rows))
            image.store(self.out)
        if again:
            image.begin("again")
            quantise_tensor(image, x, codes, scales)
        image.store(self.codes)
        image.store(self.scales)
        self.model: CompiledModel = image.finish("bench")

    def run(self, x: Floats, backend: str = "golden") -> tuple[Device, RunStats]:
        device = open_device(backend, self.model)
        assert self.x.ddr is not None
        device.write(self.x.ddr, (x.view(np.uint32) >> 16).astype(np.uint16).tobytes())
        return device, device.execute(self.model)

    def read(self, device: Device, location: Location, dtype: str) -> NDArray[np.generic]:
        assert location.ddr is not None
        return np.frombuffer(device.read(location.ddr, location.pixels * location.channels), dtype).reshape(
            location.pixels, -1
        )

    def check(self, device: Device, expected: Quantised) -> None:
        codes = self.read(device, self.codes, "i1")
        assert np.array_equal(codes, expected.codes)
        scales = self.read(device, self.scales, "<f4")
        assert np.array_equal(scales, np.broadcast_to(expected.scales[:, None], scales.shape))

    def products(self, device: Device) -> Floats:
        return (self.read(device, self.out, "<u2").astype(np.uint32) << 16).view(F)


def stored_shifts(device: Device, bench: Bench, config: NpuConfig) -> NDArray[np.uint8]:
    """Activation shifts [rows, words] of the codes in the golden machine's scratchpad."""
    assert isinstance(device, GoldenDevice) and bench.codes.view is not None
    view, pad = bench.codes.view, device._machine.scratchpad
    row, word = np.arange(bench.rows)[:, None], np.arange(-(-bench.channels // config.word_bytes))
    assert view.shift == 0
    return pad.ka[row % config.rows, view.base + word * view.plane + row // config.rows]


def random_weights(filters: int, inputs: int, rng: np.random.Generator) -> GroupWeights:
    d = rng.uniform(0.001, 0.02, (filters, inputs // 32)).astype(np.float16)
    m = (-8 * d * rng.uniform(0.5, 1.5, d.shape)).astype(np.float16)
    return from_q4_1(rng.integers(0, 16, (filters, inputs)).astype(np.uint8), d, m)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["base", "edge", "m2", *SMALL])
def test_quantisation(name: str, kind: str) -> None:
    seed = 3
    print("seed", seed)
    config = wide(name)
    x = rows_of(kind, 5, 96, np.random.default_rng(seed))
    expected, bench = quantise(x), Bench(config, 5, 96)
    device, _ = bench.run(x)
    bench.check(device, expected)
    words = np.repeat(expected.shifts, 32 // config.word_bytes, axis=1)
    assert np.array_equal(stored_shifts(device, bench, config), words)


def test_shift_and_scale_of_every_bf16() -> None:
    """fl(a fl(1/127)) rounds up to the bf16 that a / 127 does."""
    a = (np.arange(0x0080, 0x7F80, dtype=np.uint32) << 16).view(F)
    a = np.append(a[a >= 1e-12], F(1e-12))
    assert all(up(v / F(127)) == up(v * F(1 / 127)) for v in a)


def test_what_cannot_be_quantised() -> None:
    with pytest.raises(CompileError, match="'quantise groups': rows of 40 elements are not groups of 32"):
        Bench(wide("tiny"), 1, 40)
    long = replace(wide("tiny"), name="long", lanes=32, spad_bytes=64 * 1024, ring_bytes=1024)
    with pytest.raises(CompileError, match="'quantise groups': a word of machine 'long' is larger than a group of 32"):
        Bench(long, 1, 32)
    with pytest.raises(CompileError, match="a pass needs 5 columns, machine 'tiny' has 4; raise columns"):
        Bench(find("tiny"), 1, 32)


@pytest.mark.parametrize(("rows", "filters"), [(1, 5), (7, 24), (19, 10)])
@pytest.mark.parametrize("name", ["base", "edge", "m2", *SMALL])
def test_linear(name: str, rows: int, filters: int) -> None:
    """Machines tiny and odd take one row group a tile: groups span entries there."""
    seed = rows
    print("seed", seed)
    rng = np.random.default_rng(seed)
    weights = random_weights(filters, 96, rng)
    x = rows_of("outliers", rows, 96, rng)
    config = wide(name)
    if name == "five":
        config = replace(config, spad_bytes=4 * config.spad_bytes, kc_words=16)
    expected, bench = quantise(x), Bench(config, rows, 96, weights)
    device, _ = bench.run(x)
    assert np.array_equal(bench.products(device), linear(expected, weights))


@pytest.mark.parametrize("rows", [2, 7])
def test_entries_beyond_the_ring_stream_again(rows: int) -> None:
    rng = np.random.default_rng(2)
    config = replace(wide("tiny"), name="short-ring", ring_bytes=64)
    weights, x = random_weights(5, 96, rng), rows_of("normal", rows, 96, rng)
    bench = Bench(config, rows, 96, weights)
    device, _ = bench.run(x)
    assert np.array_equal(bench.products(device), linear(quantise(x), weights))


def test_quantised_again() -> None:
    config, rng = wide("odd"), np.random.default_rng(8)
    weights, x = random_weights(5, 64, rng), rows_of("normal", 2, 64, rng)
    bench = Bench(config, 2, 64, weights, again=True)
    device, _ = bench.run(x)
    bench.check(device, quantise(x))


@pytest.mark.parametrize(("name", "rows", "channels", "filters"), [("base", 3, 64, 5), ("base", 64, 576, 20)])
def test_on_the_hardware(name: str, rows: int, channels: int, filters: int) -> None:
    rng = np.random.default_rng(4)
    weights = random_weights(filters, channels, rng)
    x = np.concatenate([rows_of(kind, 1, channels, rng) for kind in KINDS if kind != "zeros"] * rows)[:rows]
    x[-1, :32] = 0
    expected, bench = quantise(x), Bench(find(name), rows, channels, weights)
    device, stats = bench.run(x, "rtl")
    bench.check(device, expected)
    assert np.array_equal(bench.products(device), linear(expected, weights))
    if rows == 64:
        passes = [span for span in stats.spans if span.engine == Engine.VECTOR]
        assert max(s.end for s in passes) - min(s.begin for s in passes) < 13_700
