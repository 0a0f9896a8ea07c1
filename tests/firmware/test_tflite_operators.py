"""Imported operators by TFLite's own rules: the numpy oracle and the machine equal its interpreter, one at a time."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tflite

from headrace.config import machine
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.errors import ModelError
from headrace_host.models.tflite_import import parse_tflite

SEED = 3


def check(models: ModuleType, content: bytes, reference: ModuleType) -> None:
    """One random input (each of the same shape for several)."""
    graph = parse_tflite(content, "model")
    print("seed", SEED)
    tensor = graph.tensors[graph.inputs[0]]
    limits = np.iinfo(tensor.dtype)
    rng = np.random.default_rng(SEED)
    value = rng.integers(limits.min, limits.max + 1, tensor.shape, limits.dtype)
    expected = models.answer(content, value)
    assert np.array_equal(reference.run(graph, value)[graph.outputs[0]], expected)
    compiled = compile_graph(graph, machine("tiny"))
    outputs, _ = open_device("golden", compiled).infer(compiled, {graph.inputs[0]: value})
    assert np.array_equal(outputs[graph.outputs[0]], expected)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2), (5, 1)])
def test_maximum_pool_with_same_padding(
    kernel: int, stride: int, tflite_models: ModuleType, reference: ModuleType
) -> None:
    def Pool2DOptions(b: Any) -> int:
        tflite.Pool2DOptionsStart(b)
        tflite.Pool2DOptionsAddPadding(b, tflite.Padding.SAME)
        tflite.Pool2DOptionsAddStrideH(b, stride)
        tflite.Pool2DOptionsAddStrideW(b, stride)
        tflite.Pool2DOptionsAddFilterHeight(b, kernel)
        tflite.Pool2DOptionsAddFilterWidth(b, kernel)
        return tflite.Pool2DOptionsEnd(b)

    operand, out = tflite_models.Operand, (-(-9 // stride), -(-8 // stride))
    source, result = operand((1, 9, 8, 5), "int8", 0.1, 3), operand((1, *out, 5), "int8", 0.1, 3)
    check(tflite_models, tflite_models.build("MAX_POOL_2D", Pool2DOptions, [source], result, version=2), reference)


def resize(models: ModuleType, large: tuple[int, int], *, half: bool = False, corners: bool = False) -> bytes:
    def ResizeNearestNeighborOptions(b: Any) -> int:
        tflite.ResizeNearestNeighborOptionsStart(b)
        tflite.ResizeNearestNeighborOptionsAddHalfPixelCenters(b, half)
        tflite.ResizeNearestNeighborOptionsAddAlignCorners(b, corners)
        return tflite.ResizeNearestNeighborOptionsEnd(b)

    size = models.Operand((2,), "int32", 0, 0, np.array(large, np.int32))
    inputs = [models.Operand((1, 4, 5, 3), "int8", 0.1, 3), size]
    output = models.Operand((1, *large, 3), "int8", 0.1, 3)
    return models.build("RESIZE_NEAREST_NEIGHBOR", ResizeNearestNeighborOptions, inputs, output, version=2)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("factor", [(2, 2), (3, 1), (1, 4), (5, 3)])
def test_resize(factor: tuple[int, int], half: bool, tflite_models: ModuleType, reference: ModuleType) -> None:
    large = 4 * factor[0], 5 * factor[1]
    check(tflite_models, resize(tflite_models, large, half=half), reference)


@pytest.mark.parametrize(("large", "corners"), [((8, 9), False), ((2, 5), False), ((8, 10), True)])
def test_other_resizes_are_refused(large: tuple[int, int], corners: bool, tflite_models: ModuleType) -> None:
    with pytest.raises(ModelError, match=r"RESIZE_NEAREST_NEIGHBOR 't?.*not an enlargement by whole factors"):
        parse_tflite(resize(tflite_models, large, corners=corners), "model")


def quantize(models: ModuleType, source: Any, output: Any) -> bytes:
    def QuantizeOptions(b: Any) -> int:
        tflite.QuantizeOptionsStart(b)
        return tflite.QuantizeOptionsEnd(b)

    return models.build("QUANTIZE", QuantizeOptions, [source], output)


@pytest.mark.parametrize("scale", [0.011, 0.07, 0.1, 0.31, 2.9])
def test_requantisation(scale: float, tflite_models: ModuleType, reference: ModuleType) -> None:
    shape = (1, 8, 16, 7)
    source, output = tflite_models.Operand(shape, "int8", 0.1, -9), tflite_models.Operand(shape, "int8", scale, 20)
    check(tflite_models, quantize(tflite_models, source, output), reference)


def test_unsigned_codes_move(tflite_models: ModuleType, reference: ModuleType) -> None:
    shape = (1, 8, 16, 3)
    source, output = tflite_models.Operand(shape, "uint8", 0.1, 100), tflite_models.Operand(shape, "int8", 0.1, -28)
    check(tflite_models, quantize(tflite_models, source, output), reference)
