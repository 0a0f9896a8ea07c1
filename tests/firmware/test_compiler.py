"""Compiled networks on the golden machine equal the numpy oracle bit for bit, on machines of every shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace.config import NpuConfig, machine
from headrace.isa import COMMAND_BYTES
from headrace.isa.assembler import Program
from headrace.isa.check import check as check_image
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.errors import CompileError
from headrace_host.models.graph import Graph
from headrace_host.session import samples

SMALL = ["odd", "tiny", "thin"]
MACHINES = ["base", *SMALL]


def check(graph: Graph, config: NpuConfig, image: np.ndarray, reference: ModuleType) -> list[str]:
    """Run ``graph`` and compare every output; return the commands used."""
    model = compile_graph(graph, config)
    check_image(Program.from_image(model.ring[: model.count * COMMAND_BYTES]), config)
    outputs, _ = open_device("golden", model).infer(model, {graph.inputs[0]: image})
    expected = reference.run(graph, image)
    for name, value in outputs.items():
        assert np.array_equal(value, expected[name]), f"{name}: {(value != expected[name]).mean():.1%} differ"
    return [layer.operator for layer in model.layers]


@pytest.mark.parametrize("name", ["base", "edge", "m2", "odd", "tiny", "thin"])
def test_resnet8(name: str, resnet8: Graph, cifar10: list[Path], reference: ModuleType) -> None:
    image = next(samples(resnet8, cifar10[:1])).value
    operators = check(resnet8, machine(name), image, reference)
    assert operators.count("Conv2D+Add") == 3
    assert operators.count("Softmax") == 1


@pytest.mark.parametrize("name", ["base", "tiny"])
def test_visual_wake_words(name: str, wake_words: Graph, photographs: list[Path], reference: ModuleType) -> None:
    image = next(samples(wake_words, photographs)).value
    operators = check(wake_words, machine(name), image, reference)
    assert operators.count("DepthwiseConv") == 13


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("seed", range(12))
def test_random_convolutions(name: str, seed: int, graphs: ModuleType, reference: ModuleType) -> None:
    rng = np.random.default_rng(seed)
    height, width, channels = (int(rng.integers(4, 12)) for _ in range(3))
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    build = graphs.Builder(seed, (1, height, width, channels))
    mid = build.conv(
        build.source, int(rng.integers(1, 20)), kernel, tuple(int(s) for s in rng.integers(1, 4, 2)),
        tuple(int(p) for p in rng.integers(0, 2, 4)),
    )  # fmt: skip
    out = build.conv(mid, int(rng.integers(1, 12)), (1, 1), (1, 1), (0, 0, 0, 0), act=(-20, 90))
    check(build.graph(mid, out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_folded_first_layer(name: str, channels: int, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(channels, (1, 9, 11, channels))
    out = build.conv(build.source, 5, (3, 5), (2, 1), (1, 1, 2, 2))
    check(build.graph(out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
def test_dilation(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(1, (1, 9, 8, 6))
    out = build.conv(build.source, 4, (3, 2), (1, 1), (2, 2, 1, 1), dilation=(2, 3))
    check(build.graph(out), machine(name), build.image(), reference)


@pytest.mark.parametrize("name", MACHINES)
def test_residuals_fused_and_alone(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(3, (1, 6, 5, 7))
    a = build.conv(build.source, 9)
    b = build.conv(a, 9)
    fused = build.add(a, b)
    flipped = build.add(build.conv(fused, 9, (1, 1), padding=(0, 0, 0, 0)), fused)
    alone = build.add(flipped, a)
    operators = check(build.graph(alone), machine(name), build.image(), reference)
    assert operators.count("Conv2D+Add") == 2 and operators.count("Add") == 1


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("largest", [False, True])
def test_pooling_and_classifier(name: str, largest: bool, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(4, (1, 9, 7, 5))
    pooled = build.pool(build.conv(build.source, 6), (3, 2), (2, 1), largest=largest)
    out = build.dense(build.flatten(pooled), 11)
    check(build.graph(out, pooled), machine(name), build.image(), reference)


@pytest.mark.parametrize("count", [2, 3, 7, 9, 49, 64, 100])
def test_average_of_any_count(count: int, graphs: ModuleType, reference: ModuleType) -> None:
    build = graphs.Builder(count, (1, 1, count, 4))
    check(build.graph(build.pool(build.source, (1, count), (1, 1))), machine("odd"), build.image(), reference)


@pytest.mark.parametrize("name", SMALL)
def test_tensors_larger_than_the_scratchpad(name: str, graphs: ModuleType, reference: ModuleType) -> None:
    """Inputs, intermediates, residuals and outputs pass through DDR in strips."""
    build = graphs.Builder(5, (1, 40, 36, 12))
    a = build.conv(build.source, 14)
    b = build.add(build.conv(a, 14), a)
    out = build.conv(b, 10, (3, 3), (2, 2))
    check(build.graph(out, b), machine(name), build.image(), reference)


def test_weights_larger_than_the_ring(graphs: ModuleType, reference: ModuleType) -> None:
    """More entries than the ring holds: weights stream again for every tile."""
    config = replace(machine("odd"), name="small-ring", ring_bytes=4 * 3 * 8)
    build = graphs.Builder(6, (1, 7, 6, 24))
    check(build.graph(build.conv(build.source, 7)), config, build.image(), reference)


def test_constants_rotate_through_small_memories(graphs: ModuleType, reference: ModuleType) -> None:
    """Column memories and contexts are too small for all layers at once."""
    config = replace(machine("odd"), name="small-columns", column_words=16, contexts=4)
    build = graphs.Builder(7, (1, 5, 5, 6))
    last = build.source
    for filters in (9, 12, 7, 20, 6):
        last = build.conv(last, filters)
        last = build.add(last, build.conv(last, filters))
    check(build.graph(last), config, build.image(), reference)


def test_layer_that_cannot_fit_is_named(graphs: ModuleType) -> None:
    build = graphs.Builder(8, (1, 4, 4000, 30))
    out = build.conv(build.source, 4)
    with pytest.raises(CompileError, match=rf"layer '{out}' does not fit the scratchpad of machine 'tiny'"):
        compile_graph(build.graph(out), machine("tiny"))
