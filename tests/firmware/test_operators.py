"""Operators of the dataflow array on the golden machine equal the numpy oracle bit for bit."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from headrace.config import NpuConfig, machine
from headrace.isa import COMMAND_BYTES
from headrace.isa.assembler import Program
from headrace.isa.check import check as check_image
from headrace_host.compiler.model import CompiledModel, Layer
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.errors import ModelError
from headrace_host.models.graph import Graph

SMALL = ["odd", "tiny", "thin"]
MACHINES = ["base", *SMALL]


def check(graph: Graph, config: NpuConfig, image: np.ndarray, reference: ModuleType) -> CompiledModel:
    """Run ``graph`` and compare every output."""
    model = compile_graph(graph, config)
    check_image(Program.from_image(model.ring[: model.count * COMMAND_BYTES]), config)
    outputs, _ = open_device("golden", model).infer(model, {graph.inputs[0]: image})
    expected = reference.run(graph, image)
    for name, value in outputs.items():
        assert np.array_equal(value, expected[name]), f"{name}: {(value != expected[name]).mean():.1%} differ"
    return model


def layer(model: CompiledModel, operator: str) -> Layer:
    """The only layer of that operator."""
    (found,) = (layer for layer in model.layers if layer.operator == operator)
    return found


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_and_pointwise(name: str, stride: int, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(20, (1, 9, 7, 6))
    spread = build.depthwise(build.source, (3, 3), (stride, stride))
    out = build.depthwise(build.conv(spread, 11, (1, 1), padding=(0, 0, 0, 0)))
    check(build.graph(out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((2, 2), (1, 1), (0, 1, 0, 1)),
        ((5, 5), (1, 1), (2, 2, 2, 2)),
        ((3, 4), (3, 2), (0, 2, 3, 0)),
    ],
)
def test_padded_maximum(
    name: str, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...], graphs: ModuleType,
    reference: ModuleType,
) -> None:  # fmt: skip
    build = graphs.Builder(21, (1, 7, 8, 5))
    out = build.pool(build.source, kernel, stride, largest=True, padding=padding)
    check(build.graph(out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("factor", [(2, 2), (1, 3), (4, 1)])
def test_resize(name: str, factor: tuple[int, int], graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(22, (1, 5, 6, 7))
    check(build.graph(build.resize(build.source, factor)), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
def test_concatenation_in_place(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    """Inputs that only the concatenation reads, whatever wrote them, are written where they belong."""
    build = graphs.Builder(23, (1, 6, 5, 5))
    a = build.conv(build.source, 5)
    b = build.pool(build.conv(build.source, 3, like=a), (3, 3), (1, 1), largest=True, padding=(1, 1, 1, 1))
    c = build.conv(build.source, 9, like=a)
    joined = build.concat(a, b, c)
    model = check(build.graph(build.conv(joined, 4), joined), machine(name), build.image(), reference)
    assert layer(model, "Concat").runs_on == "placement" and not layer(model, "Concat").commands


@pytest.mark.parametrize("name", MACHINES)
def test_concatenation_by_copy(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    """What is read elsewhere from the middle of a word, twice, or is an input or output of the network."""
    build = graphs.Builder(24, (1, 6, 5, 5))
    a = build.conv(build.source, 5, like=build.source)
    b = build.conv(build.source, 3, like=build.source)
    joined = build.concat(a, b, build.source, a)
    model = check(build.graph(build.conv(b, 4), joined, a), machine(name), build.image(), reference)
    assert layer(model, "Concat").runs_on == "dataflow array"


@pytest.mark.parametrize("name", MACHINES)
def test_requantisation(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(25, (1, 4, 5, 7))
    out = build.quantize(build.conv(build.source, 6))
    check(build.graph(out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("channels", [3, 9])
def test_unsigned_input_is_multiplied_as_it_is(
    name: str, channels: int, graphs: ModuleType, reference: ModuleType
) -> None:
    build = graphs.Builder(26, (1, 6, 5, channels), unsigned=True)
    moved = build.quantize(build.source, moved=True)
    model = check(build.graph(build.conv(moved, 4)), machine(name), build.image(), reference)
    assert [layer.operator for layer in model.layers] == ["Conv2D"]


@pytest.mark.parametrize("name", MACHINES)
def test_unsigned_input_becomes_signed(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(27, (1, 6, 5, 3), unsigned=True)
    moved = build.quantize(build.source, moved=True)
    check(build.graph(build.add(build.conv(moved, 3), moved)), machine(name), build.image(), reference)


def test_other_unsigned_scales_are_refused(graphs: ModuleType) -> None:
    build = graphs.Builder(28, (1, 6, 5, 3), unsigned=True)
    with pytest.raises(ModelError, match=r"Quantize 'quantize0'\): uint8 codes must keep their scale"):
        compile_graph(build.graph(build.quantize(build.source)), machine("tiny"))


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("classes", [1, 2, 10, 37])
def test_softmax(name: str, classes: int, graphs: ModuleType, reference: ModuleType) -> None:
    """Of one row, of every pixel of an image, and read by another layer."""
    build = graphs.Builder(29, (1, 3, 4, classes))
    rows = build.softmax(build.source)
    last = build.softmax(build.dense(build.flatten(rows), classes))
    check(build.graph(rows, last), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", SMALL)
def test_operands_larger_than_the_scratchpad(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    """Additions, pools, enlargements and copies pass through DDR in strips."""
    config = replace(machine(name), name="small", spad_bytes=machine(name).spad_bytes // 4)
    build = graphs.Builder(30, (1, 22, 20, 8))
    a = build.conv(build.source, 8, (1, 1), padding=(0, 0, 0, 0))
    total = build.add(build.add(a, build.source), a)
    pooled = build.pool(total, (3, 3), (2, 2), largest=True, padding=(1, 1, 1, 1))
    large = build.resize(pooled, (2, 2))
    check(
        build.graph(build.concat(large, build.resize(pooled, (2, 2))), pooled, total), config, build.image(), reference
    )
