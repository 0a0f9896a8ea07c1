"""Random graphs of every operator, on machines with and without room, equal the numpy oracle bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import COMMAND_BYTES
from headrace.isa.assembler import Program
from headrace.isa.check import check as check_image
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device

NAMES = ("conv", "depthwise", "maximum", "average", "resize", "concat", "quantize", "add")


def grow(build: Any, rng: random.Random, tensors: list[str]) -> str:
    """Append a random operator to the graph; return its output."""
    source, kind = rng.choice(tensors[-3:]), rng.choice(NAMES)
    shape = build.tensors[source].shape
    both = (rng.randint(1, 2),) * 2
    if kind == "depthwise":
        return build.depthwise(source, (3, 3), both)
    if kind == "maximum":
        return build.pool(source, (2, 2), both, largest=True, padding=(0, 1, 0, 1))
    if kind == "average" and min(shape[1:3]) > 1:
        return build.pool(source, (2, 2), (1, 1))
    if kind == "resize" and max(shape[1:3]) < 25:
        return build.resize(source, (rng.randint(1, 2), rng.randint(1, 3)))
    if kind == "quantize":
        return build.quantize(source)
    if kind == "add":
        return build.add(source, rng.choice([t for t in tensors if build.tensors[t].shape == shape]))
    if kind == "concat":
        joined = [build.conv(source, rng.randint(1, 9), like=source) for _ in range(rng.randint(0, 2))]
        joined.append(build.pool(source, (3, 3), (1, 1), largest=True, padding=(1, 1, 1, 1)))
        joined.append(source)
        rng.shuffle(joined)
        tensors += [name for name in joined if rng.random() < 0.3]
        return build.concat(*joined)
    return build.conv(source, rng.randint(1, 18), (rng.randint(1, 3),) * 2, both, like=rng.choice([None, source]))


@pytest.mark.parametrize("name", ["base", "tiny", "odd"])
@pytest.mark.parametrize("seed", range(16))
def test_random_graph(name: str, seed: int, graphs: ModuleType, reference: ModuleType) -> None:
    rng = random.Random(seed)
    build = graphs.Builder(seed, (1, rng.randint(4, 12), rng.randint(4, 12), rng.randint(1, 10)))
    tensors = [build.source]
    for _ in range(rng.randint(2, 8)):
        tensors.append(grow(build, rng, tensors))
    outputs = {tensors[-1], rng.choice(tensors[1:])} - {build.source}
    graph, image = build.graph(*outputs), build.image()
    config = machine(name)
    if name != "base" and rng.random() < 0.5:
        config = replace(config, name="small", spad_bytes=config.spad_bytes // 4)
    model = compile_graph(graph, config)
    check_image(Program.from_image(model.ring[: model.count * COMMAND_BYTES]), config)
    found, _ = open_device("golden", model).infer(model, {graph.inputs[0]: image})
    expected = reference.run(graph, image)
    for tensor, value in found.items():
        assert np.array_equal(value, expected[tensor]), f"{tensor} differs"
