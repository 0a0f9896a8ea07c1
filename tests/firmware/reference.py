"""Plain numpy operators by TFLite's default rules: the oracle of the host tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_host import quantise
from headrace_host.models.graph import (
    Add,
    AvgPool,
    Concat,
    Conv2D,
    DepthwiseConv,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Quantize,
    Reshape,
    Resize,
    Softmax,
    Windowed,
)

Int8 = NDArray[np.int8]


def _windows(node: Windowed, image: Int8, fill: int) -> NDArray[np.int64]:
    """Padded input regrouped as [out_y, out_x, ky, kx, channel]."""
    p, k, s, d = node.padding, node.kernel, node.stride, node.dilation
    padded = np.pad(image[0].astype(np.int64), ((p.top, p.bottom), (p.left, p.right), (0, 0)), constant_values=fill)
    out = node.output_extent(image.shape[1], image.shape[2])
    ys = np.arange(out.y)[:, None] * s.y + np.arange(k.y) * d.y
    xs = np.arange(out.x)[:, None] * s.x + np.arange(k.x) * d.x
    return padded[ys[:, None, :, None], xs[None, :, None, :]]


def requantise(acc: NDArray[np.int64], constants: quantise.RequantConstants) -> Int8:
    total = (acc + constants.bias).astype(np.int32).astype(np.float32)
    rounded = np.rint(total * constants.scale).astype(np.int64) + constants.zero_point
    return np.clip(rounded, constants.act_min, constants.act_max).astype(np.int8)


def conv(graph: Graph, node: Conv2D, image: Int8) -> Int8:
    weight = graph.tensors[node.inputs[1]].data.astype(np.int64)
    windows = _windows(node, image, graph.tensors[node.inputs[0]].zero_point)
    filters, channels = weight.shape[0] // node.groups, weight.shape[3]
    groups = [
        np.einsum(
            "yxklc,oklc->yxo",
            windows[..., g * channels : (g + 1) * channels],
            weight[g * filters : (g + 1) * filters],
            optimize=True,
        )
        for g in range(node.groups)
    ]
    return requantise(np.concatenate(groups, axis=2), quantise.requantisation(graph, node))[None]


def depthwise(graph: Graph, node: DepthwiseConv, image: Int8) -> Int8:
    weight = graph.tensors[node.inputs[1]].data.astype(np.int64)
    windows = _windows(node, image, graph.tensors[node.inputs[0]].zero_point)
    return requantise(np.einsum("yxklc,ckl->yxc", windows, weight), quantise.requantisation(graph, node))[None]


def fully_connected(graph: Graph, node: FullyConnected, vector: Int8) -> Int8:
    weight = graph.tensors[node.inputs[1]].data.astype(np.int64)
    return requantise(vector.astype(np.int64) @ weight.T, quantise.requantisation(graph, node))


def add(graph: Graph, node: Add, a: Int8, b: Int8) -> Int8:
    c = quantise.addition(graph, node)
    total = (a.astype(np.int64) - c.zp_a) * c.ma + (b.astype(np.int64) - c.zp_b) * c.mb
    shifted = ((total + (1 << (c.shift - 1))) >> c.shift) + c.zero_point
    return np.clip(shifted, c.act_min, c.act_max).astype(np.int8)


def average_pool(graph: Graph, node: AvgPool, image: Int8) -> Int8:
    c = quantise.average_pool(node)
    total = _windows(node, image, 0).sum(axis=(2, 3))
    quotient = np.sign(total) * ((np.abs(total) + c.count // 2) // c.count)
    return np.clip(quotient, c.act_min, c.act_max).astype(np.int8)[None]


def maximum_pool(graph: Graph, node: MaxPool, image: Int8) -> Int8:
    largest = _windows(node, image, -128).max(axis=(2, 3))
    return np.clip(largest, node.act_min, node.act_max).astype(np.int8)[None]


def softmax(graph: Graph, node: Softmax, vector: Int8) -> Int8:
    source, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    scale = np.float32(source.scalar_scale * np.float32(node.beta))
    distances = vector.max(axis=-1, keepdims=True).astype(np.float32) - vector
    exponentials = np.exp((-scale * distances).astype(np.float64)).astype(np.float32)
    total = np.cumsum(exponentials, axis=-1, dtype=np.float32)[..., -1:]  # one after the other
    scores = (exponentials * (np.float32(1) / (total * output.scalar_scale))).astype(np.float64)
    return np.clip(np.floor(scores + 0.5) + output.zero_point, -128, 127).astype(np.int8)


def rescale(graph: Graph, node: Quantize, codes: Int8) -> Int8:
    source, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    multiplier = np.rint(np.float32(256) * (source.scalar_scale / output.scalar_scale)).astype(np.int64)
    scaled = ((codes.astype(np.int64) - source.zero_point) * multiplier + 128) >> 8
    return np.clip(scaled + output.zero_point, -128, 127).astype(np.int8)


def run_node(graph: Graph, node: Node, inputs: list[Int8]) -> Int8:
    """The output of ``node`` for its non-constant ``inputs``."""
    match node:
        case Conv2D():
            return conv(graph, node, inputs[0])
        case DepthwiseConv():
            return depthwise(graph, node, inputs[0])
        case FullyConnected():
            return fully_connected(graph, node, inputs[0])
        case Add():
            return add(graph, node, *inputs)
        case AvgPool():
            return average_pool(graph, node, inputs[0])
        case MaxPool():
            return maximum_pool(graph, node, inputs[0])
        case Softmax():
            return softmax(graph, node, inputs[0])
        case Quantize():
            return rescale(graph, node, inputs[0])
        case Concat():
            return np.concatenate(inputs, axis=node.axis)
        case Resize():
            return inputs[0].repeat(node.factor.y, axis=1).repeat(node.factor.x, axis=2)
        case Reshape():
            return inputs[0].reshape(graph.tensors[node.output].shape)
    raise TypeError(f"node '{node.name}': there is no reference for the operator {node.operator}")


def run(graph: Graph, image: Int8) -> dict[str, Int8]:
    """Every activation of the network, by tensor name."""
    values = {graph.inputs[0]: image}
    for node in graph.nodes:
        activations = [values[name] for name in node.inputs if graph.tensors[name].data is None]
        values[node.output] = run_node(graph, node, activations)
    return values
