"""MAC layers of every mode on the golden machine equal sums computed directly, and read their weights once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.config import MACHINES, NpuConfig, Precision, machine
from headrace.isa import COMMAND_BYTES, DType
from headrace.isa.assembler import Program
from headrace.isa.check import check as check_image
from headrace_host.allocate import DdrAllocator, ScratchpadAllocator
from headrace_host.compiler.constants import ConstantStore, DdrImage
from headrace_host.compiler.encode import encode_command
from headrace_host.compiler.mac_layer import MacLayer, MacLowering
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.packing import element_bytes, pack_nibbles, unpack_nibbles
from headrace_host.compiler.stream import Planned, Recorder, TokenAssigner, schedule
from headrace_host.compiler.tiling import ConvShape
from headrace_host.errors import CompileError
from headrace_host.models.graph import GroupScales, Padding, Pair
from headrace_host.quantise import RequantConstants
from headrace_sim.golden import GoldenMachine, Window

AREA = 1 << 20
"""Bytes of DDR for activations; constants follow."""

SMALL = ["odd", "tiny", "thin"]
ALL = ["base", "edge", *SMALL]


def convolution(
    height: int, width: int, channels: int, filters: int, kernel: Pair, stride: Pair, pad: int
) -> ConvShape:
    out = [(n + 2 * pad - k) // s + 1 for n, k, s in zip((height, width), kernel, stride, strict=True)]
    return ConvShape(
        in_h=height, in_w=width, in_c=channels, out_h=out[0], out_w=out[1], out_c=filters, kernel=kernel, stride=stride,
        dilation=Pair(1, 1), padding=Padding(pad, pad, pad, pad),
    )  # fmt: skip


def windows(shape: ConvShape, image: NDArray[np.int8], fill: int) -> NDArray[np.int64]:
    """Padded input regrouped as [out_y, out_x, ky, kx, channel]."""
    p, k, s = shape.padding, shape.kernel, shape.stride
    padded = np.pad(image.astype(np.int64), ((p.top, p.bottom), (p.left, p.right), (0, 0)), constant_values=fill)
    ys = np.arange(shape.out_h)[:, None] * s.y + np.arange(k.y)
    xs = np.arange(shape.out_w)[:, None] * s.x + np.arange(k.x)
    return padded[ys[:, None, :, None], xs[None, :, None, :]]


class Bench:
    """One layer with random operands; its input starts in DDR and its output ends there."""

    def __init__(self, config: NpuConfig, shape: ConvShape, seed: int, **options: object) -> None:
        self.config, self.shape, rng = config, shape, np.random.default_rng(seed)
        precision = options.setdefault("precision", Precision.A8W8)
        self.act4, self.out4 = precision is Precision.A4W4, options.get("output_type") == DType.I4
        low, high = (-8, 8) if self.act4 else (-128, 128)
        if options.get("act_unsigned"):
            low, high = 0, high - low
        weight = (-127, 128) if precision is Precision.A8W8 else (0, 16) if options.get("weight_unsigned") else (-8, 8)
        groups = options.get("groups", shape.in_c if options.get("depthwise") else 1)
        assert isinstance(groups, int)
        self.groups, inputs = groups, shape.in_c // groups
        self.image = rng.integers(low, high, (shape.in_h, shape.in_w, shape.in_c)).astype(np.int16)
        weights = rng.integers(*weight, (shape.out_c, *shape.kernel, inputs)).astype(np.int8)
        size = float(np.sqrt(inputs * shape.kernel.y * shape.kernel.x)) * high * weight[1]
        span = (-8, 7) if self.out4 else (-128, 127)
        requant = RequantConstants(
            bias=rng.integers(-100, 100, shape.out_c).astype(np.int32),
            scale=(rng.uniform(0.5, 2, shape.out_c) * span[1] / size).astype(np.float32),
            zero_point=1, act_min=span[0], act_max=span[1],
        )  # fmt: skip
        width = element_bytes(DType.I4 if self.act4 else DType.I8, shape.in_c)
        shift = shape.stride.x.bit_length() - 1
        source = Location("x", shape.in_h * shape.in_w, width, shift, ddr=0)
        out = element_bytes(DType.I4 if self.out4 else DType.I8, shape.out_c)
        output = Location("y", shape.out_h * shape.out_w, out, 0, ddr=-(-source.pixels * width // 64) * 64)
        self.layer = MacLayer(
            name="layer", label=0, shape=shape, weights=weights, requant=requant, source=source, output=output,
            pad_value=int(rng.integers(low, high)), **options,
        )  # fmt: skip
        self.commands: list[Planned] = []

    def run(self, *, resident: bool = True) -> NDArray[np.int8]:
        """Outputs of the golden machine; ``resident``: input and output have a place on chip."""
        config, layer, recorder = self.config, self.layer, Recorder()
        memory = Memory(config, recorder, ScratchpadAllocator(config), 0)
        if resident:
            assert memory.place(layer.source, prefer=0) and memory.place(layer.output, prefer=1)
        image = DdrImage(DdrAllocator(AREA, 1 << 32))
        MacLowering(layer, memory, ConstantStore(config, recorder, image), image).emit()
        self.commands = [*schedule(recorder.commands), Planned("END", 0, (), {"value": 1})]
        values = TokenAssigner(config, AREA // 64).assign(self.commands)
        ring = b"".join(encode_command(config, c.name, v) for c, v in zip(self.commands, values, strict=True))
        check_image(Program.from_image(ring), config)
        at = image.allocator.allocate(1 << max(7, (len(ring) - 1).bit_length()), "ring")
        end = image.allocator.align_page()
        golden = GoldenMachine(config, ddr_base=0, ddr_bytes=end)
        golden.windows = [Window(0, end >> 12, True, True)]
        for address, content in (*image.segments, (at, ring)):
            golden.write_ddr(address, content)
        codes = self.image.astype(np.uint8).view(np.int8).reshape(-1, self.shape.in_c)
        golden.write_ddr(0, (pack_nibbles(codes) if self.act4 else codes).tobytes())
        result = golden.run(at, len(ring) // COMMAND_BYTES, ring_size=12)
        assert result.error is None, result.error
        output = layer.output
        found = np.frombuffer(golden.read_ddr(output.ddr, output.pixels * output.channels), np.int8)
        found = found.reshape(output.pixels, output.channels)
        return unpack_nibbles(found)[:, : self.shape.out_c] if self.out4 else found

    def sums(self) -> NDArray[np.int64]:
        """Accumulators [pixels, filters] without group scales."""
        seen = windows(self.shape, self.image, self.layer.pad_value)
        inputs = np.split(seen, self.groups, axis=4)
        filters = np.split(self.layer.weights.astype(np.int64), self.groups)
        parts = [np.einsum("yxklc,oklc->yxo", a, w) for a, w in zip(inputs, filters, strict=True)]
        return np.concatenate(parts, axis=2).reshape(-1, self.shape.out_c)

    def expected(self, sums: NDArray[np.int64] | None = None) -> NDArray[np.int8]:
        constants = self.layer.requant
        total = ((self.sums() if sums is None else sums) + constants.bias).astype(np.float32)
        codes = np.rint(total * constants.scale).astype(np.int64) + constants.zero_point
        return np.clip(codes, constants.act_min, constants.act_max).astype(np.int8)

    @property
    def streamed(self) -> int:
        """Weight entries read from DDR."""
        return sum(c.values["entries"] * c.values["repeat"] for c in self.commands if c.name == "WEIGHT")

    @property
    def modes(self) -> set[int]:
        return {c.values["depthwise"] for c in self.commands if c.name == "MAC"}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 2), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(name: str, kernel: tuple[int, int], stride: int) -> None:
    config = machine(name)
    shape = convolution(8, 9, 21, 21, Pair(*kernel), Pair(stride, stride), kernel[1] // 2)
    bench = Bench(config, shape, 1, depthwise=True)
    assert np.array_equal(bench.run(), bench.expected())
    assert bench.modes == {int(config.depthwise_taps >= kernel[1])}


@pytest.mark.parametrize("name", ["base", "edge", "tiny"])
@pytest.mark.parametrize("kernel", [2, 3])
def test_depthwise_of_unsigned_pixels_to_int4(name: str, kernel: int) -> None:
    shape = convolution(8, 9, 21, 21, Pair(kernel, kernel), Pair(1, 1), 1)
    bench = Bench(machine(name), shape, 2, depthwise=True, act_unsigned=True, output_type=DType.I4)
    assert np.array_equal(bench.run(), bench.expected())


@pytest.mark.parametrize("name", ["base", "odd", "tiny"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_in_strips(name: str, stride: int) -> None:
    """Input and output pass through DDR; weights are read once where the array has the mode."""
    config = machine(name)
    bench = Bench(config, convolution(40, 36, 16, 16, Pair(2, 2), Pair(stride, stride), 1), 3, depthwise=True)
    assert np.array_equal(bench.run(resident=False), bench.expected())
    assert sum(c.name == "MAC" for c in bench.commands) > 2
    if config.depthwise_taps >= 2:
        assert bench.streamed == 2 * -(-16 // config.word_bytes)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("groups", [2, 3, 4, 6, 12])
def test_grouped_convolution(name: str, groups: int) -> None:
    bench = Bench(machine(name), convolution(6, 5, 24, 36, Pair(3, 3), Pair(1, 1), 1), groups, groups=groups)
    assert np.array_equal(bench.run(), bench.expected())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("channels", [5, 16, 40])
@pytest.mark.parametrize("stride", [1, 2])
def test_precisions(name: str, precision: Precision, channels: int, stride: int) -> None:
    shape = convolution(7, 6, channels, 10, Pair(3, 3), Pair(stride, stride), 1)
    bench = Bench(machine(name), shape, channels, precision=precision)
    assert np.array_equal(bench.run(), bench.expected())


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("signs", [(True, False), (False, True), (True, True)])
def test_unsigned_codes(precision: Precision, signs: tuple[bool, bool]) -> None:
    shape = convolution(4, 5, 24, 10, Pair(2, 3), Pair(1, 1), 1)
    weight_unsigned = signs[1] and precision is not Precision.A8W8
    bench = Bench(
        machine("tiny"), shape, 3, precision=precision, act_unsigned=signs[0], weight_unsigned=weight_unsigned
    )
    assert np.array_equal(bench.run(), bench.expected())


@pytest.mark.parametrize("name", ["base", "edge", "tiny"])
@pytest.mark.parametrize("filters", [6, 19])
def test_int4_outputs(name: str, filters: int) -> None:
    shape = convolution(7, 6, 12, filters, Pair(3, 3), Pair(1, 1), 1)
    bench = Bench(machine(name), shape, filters, precision=Precision.A4W4, output_type=DType.I4)
    assert np.array_equal(bench.run(), bench.expected())


def test_int4_outputs_need_even_columns() -> None:
    shape = convolution(7, 6, 12, 6, Pair(1, 1), Pair(1, 1), 0)
    with pytest.raises(
        CompileError, match="layer 'layer': INT4 activations need even C and L, machine 'odd' has 3 and 2"
    ):
        Bench(machine("odd"), shape, 0, precision=Precision.A4W4, output_type=DType.I4).run()


def scaled_sums(bench: Bench, scales: GroupScales) -> NDArray[np.int64]:
    """Accumulators of a 1x1 layer with group scales and activation shifts 0."""
    codes, weights = bench.image.reshape(-1, bench.shape.in_c).astype(np.int64), bench.layer.weights[:, 0, 0]
    if scales.sd is None or scales.sm is None or scales.kc is None:
        return 8 * bench.sums()
    total = np.zeros((len(codes), bench.shape.out_c), np.int64)
    for group, start in enumerate(range(0, bench.shape.in_c, 32)):
        a, w = codes[:, start : start + 32], weights[:, start : start + 32].astype(np.int64)
        offset = scales.sm[:, group].astype(np.int64) * a.sum(axis=1, keepdims=True) << scales.kc.astype(np.int64)
        total += scales.sd[:, group].astype(np.int64) * (a @ w.T) + offset
    return total


@pytest.mark.parametrize("name", [*ALL, "m2"])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("channels", [96, 120])
def test_group_scales(name: str, precision: Precision, channels: int) -> None:
    config, filters, rng = machine(name), 9, np.random.default_rng(channels)
    scales = GroupScales()
    if precision is not Precision.A8W8:
        groups = (filters, -(-channels // 32))
        scales = GroupScales(
            sd=rng.integers(0, 256, groups).astype(np.uint8), sm=rng.integers(-128, 128, groups).astype(np.int8),
            kc=rng.integers(0, 8, filters).astype(np.uint8),
        )  # fmt: skip
    shape = convolution(1, 23, channels, filters, Pair(1, 1), Pair(1, 1), 0)
    bench = Bench(config, shape, 5, precision=precision, group_scales=scales)
    bench.layer.requant = replace(bench.layer.requant, scale=bench.layer.requant.scale / np.float32(200))
    if not config.scaled(precision):
        with pytest.raises(CompileError, match="cannot apply group scales"):
            bench.run()
        return
    assert np.array_equal(bench.run(), bench.expected(scaled_sums(bench, scales)))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_that_fit_the_ring_are_read_once_over_strips(precision: Precision, stride: int) -> None:
    config = replace(machine("tiny"), name="large-ring", ring_bytes=16 * 1024)
    shape = convolution(40, 36, 16, 10, Pair(3, 3), Pair(stride, stride), 1)
    bench = Bench(config, shape, 1, precision=precision)
    assert np.array_equal(bench.run(resident=False), bench.expected())
    assert sum(c.name == "MAC" for c in bench.commands) > 2
    assert bench.streamed == (36 if precision is Precision.A8W8 else 18) * 5


def test_weights_larger_than_the_ring_are_read_once_on_chip() -> None:
    """An n tile fits the ring, all of them do not: one strip, n tiles outermost."""
    config = machine("tiny")
    bench = Bench(config, convolution(6, 8, 16, 16, Pair(3, 3), Pair(1, 1), 1), 1)
    assert np.array_equal(bench.run(), bench.expected())
    assert bench.streamed == 9 * 4 * 8 > config.ring_entries


def test_machines_agree_on_depthwise_and_its_replacement() -> None:
    """The diagonal weights of machines without the mode give what the mode gives."""
    shape = convolution(9, 7, 16, 16, Pair(3, 3), Pair(1, 1), 1)
    found = [Bench(config, shape, 7, depthwise=True).run() for config in MACHINES.values()]
    assert all(np.array_equal(a, b) for a, b in itertools.pairwise(found))
