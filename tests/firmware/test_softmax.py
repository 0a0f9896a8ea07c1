"""Softmax on the machine equals TFLite's: proved for two classes, tried at random for more."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tflite

from headrace.config import machine
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.models.graph import Graph
from headrace_host.models.tflite_import import parse_tflite

RESNET8, WAKE_WORDS = 0.15372044, 0.0678567


def model(models: ModuleType, rows: int, classes: int, scale: float) -> bytes:
    def SoftmaxOptions(b: Any) -> int:
        tflite.SoftmaxOptionsStart(b)
        tflite.SoftmaxOptionsAddBeta(b, 1.0)
        return tflite.SoftmaxOptionsEnd(b)

    source = models.Operand((rows, classes), "int8", scale, 5)
    scores = models.Operand((rows, classes), "int8", 1 / 256, -128)
    return models.build("SOFTMAX", SoftmaxOptions, [source], scores, version=2)


def on_machine(graph: Graph, rows: np.ndarray, name: str) -> np.ndarray:
    compiled = compile_graph(graph, machine(name))
    return open_device("golden", compiled).infer(compiled, {graph.inputs[0]: rows})[0][graph.outputs[0]]


@pytest.mark.parametrize("scale", [WAKE_WORDS, 0.01, 0.03, 0.25])
def test_two_classes(scale: float, tflite_models: ModuleType) -> None:
    """All 65,536 pairs: TFLite's scores follow from the difference, and the machine has all 511 differences right."""
    codes = np.arange(-128, 128)
    pairs = np.stack(np.meshgrid(codes, codes, indexing="ij"), -1).reshape(-1, 2).astype(np.int8)
    expected = tflite_models.answer(model(tflite_models, len(pairs), 2, scale), pairs)
    difference = pairs[:, 0].astype(int) - pairs[:, 1] + 255
    _, first = np.unique(difference, return_index=True)
    assert np.array_equal(expected[first][difference], expected)
    graph = parse_tflite(model(tflite_models, len(first), 2, scale), "pairs")
    assert np.array_equal(on_machine(graph, pairs[first], "base"), expected[first])


@pytest.mark.parametrize(("classes", "scale"), [(10, RESNET8), (2, RESNET8), (100, 0.05)])
def test_random_rows(classes: int, scale: float, tflite_models: ModuleType) -> None:
    seed, count = 7, 1000
    print("seed", seed)
    rng = np.random.default_rng(seed)
    content = model(tflite_models, count, classes, scale)
    graph = parse_tflite(content, "rows")
    for _ in range(10_000 // count):
        rows = rng.integers(-128, 128, (count, classes), np.int8)
        assert np.array_equal(on_machine(graph, rows, "m2"), tflite_models.answer(content, rows))
