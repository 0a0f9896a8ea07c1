"""Fast evaluation of a quantised graph over many images, by the same integer rules as the machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_host import quantise
from headrace_host.errors import HostError
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
    Padding,
    Quantize,
    Reshape,
    Resize,
    Softmax,
    Windowed,
    describe,
)
from headrace_host.quantise import RequantConstants
from headrace_host.rescale import SHIFT, rescaling

Codes = NDArray[np.generic]
Floats = NDArray[np.floating]

EXACT_TERMS = 1 << 10
"""Products of two int8 codes whose sum is exact in fp32."""

HALF = 1 << (SHIFT - 1)

Weighted = Conv2D | DepthwiseConv | FullyConnected


def run(graph: Graph, images: Codes) -> dict[str, Codes]:
    """Codes of every activation by tensor name; axis 0 is the image.

    Softmax is left out: logits tell more. Raises `HostError` for an operator that has no rule here.
    """
    values: dict[str, Codes] = {graph.inputs[0]: images}
    for node in graph.nodes:
        if not isinstance(node, Softmax):
            values[node.output] = run_node(graph, node, [values[name] for name in node.inputs if name in values])
    return values


def logits(graph: Graph, images: Codes) -> NDArray[np.float32]:
    """What the last operator but Softmax computes, as real numbers [images, elements]."""
    return real_logits(graph, run(graph, images))


def real_logits(graph: Graph, values: dict[str, Codes]) -> NDArray[np.float32]:
    """Logits of activations that `run` gave."""
    tensor = graph.tensors[logits_tensor(graph)]
    codes = values[tensor.name]
    return ((codes.astype(np.float32) - tensor.zero_point) * tensor.scalar_scale).reshape(len(codes), -1)


def logits_tensor(graph: Graph) -> str:
    """The tensor that classifies: the network's output, or what its last Softmax reads."""
    node = graph.producer(graph.outputs[0])
    return node.inputs[0] if isinstance(node, Softmax) else graph.outputs[0]


def run_node(graph: Graph, node: Node, inputs: list[Codes]) -> Codes:
    """The output of ``node`` for its activations."""
    out = graph.tensors[node.output]
    match node:
        case Conv2D() | DepthwiseConv() | FullyConnected():
            return _requantise(_sums(graph, node, inputs[0]), quantise.requantisation(graph, node))
        case Add():
            return _add(graph, node, inputs[0], inputs[-1])
        case AvgPool():
            return _average(node, inputs[0])
        case MaxPool():
            largest = windows(node, inputs[0], -128).max(axis=(4, 5))
            return np.clip(largest, node.act_min, node.act_max).astype(np.int8)
        case Reshape():
            return inputs[0].reshape(len(inputs[0]), *out.shape[1:])
        case Concat():
            return np.concatenate(inputs, axis=node.axis)
        case Resize():
            return inputs[0].repeat(node.factor.y, axis=1).repeat(node.factor.x, axis=2)
        case Quantize():
            c = rescaling(graph, node)
            moved = ((inputs[0].astype(np.int64) - c.source_zero) * c.multiplier + HALF) >> SHIFT
            return np.clip(moved + c.zero_point, -128, 127).astype(np.int8)
    raise HostError(f"{describe(node)}: precision cannot be chosen for networks with this operator")


def windows(node: Windowed, images: Codes, fill: int) -> NDArray[np.float32]:
    """What the kernel sees [images, out_y, out_x, channel, ky, kx]; padding holds ``fill``."""
    p, k, s, d = Padding(*node.padding), node.kernel, node.stride, node.dilation
    sides = ((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0))
    padded = np.pad(images.astype(np.float32), sides, constant_values=fill)
    span = ((k.y - 1) * d.y + 1, (k.x - 1) * d.x + 1)
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    chosen: NDArray[np.float32] = views[:, :: s.y, :: s.x, :, :: d.y, :: d.x]
    return chosen


def _sums(graph: Graph, node: Weighted, codes: Codes) -> Floats:
    """Plain sums of products, exact."""
    data = graph.tensors[node.inputs[1]].data
    assert data is not None
    kind: type[np.floating] = np.float32 if data[0].size <= EXACT_TERMS else np.float64
    weights: Floats = data.astype(kind)
    if isinstance(node, FullyConnected):
        return codes.reshape(len(codes), -1).astype(kind) @ weights.T
    seen = windows(node, codes, graph.tensors[node.inputs[0]].zero_point)
    if isinstance(node, DepthwiseConv):
        total: Floats = np.zeros(seen.shape[:4], kind)
        for y, x in np.ndindex(*node.kernel):
            total += seen[..., y, x] * weights[:, y, x]
        return total
    parts = []
    for kernels, part in zip(np.split(weights, node.groups), np.split(seen, node.groups, axis=3), strict=True):
        flat = part.transpose(0, 1, 2, 4, 5, 3).reshape(*part.shape[:3], -1).astype(kind, copy=False)
        parts.append(flat @ kernels.reshape(len(kernels), -1).T)
    return np.concatenate(parts, axis=3)


def _requantise(sums: Floats, c: RequantConstants) -> Codes:
    total = (sums.astype(np.int32) + c.bias).astype(np.float32)
    return np.clip(np.rint(total * c.scale) + c.zero_point, c.act_min, c.act_max).astype(np.int8)


def _add(graph: Graph, node: Add, a: Codes, b: Codes) -> Codes:
    c = quantise.addition(graph, node)
    total = (a.astype(np.int64) - c.zp_a) * c.ma + (b.astype(np.int64) - c.zp_b) * c.mb
    shifted = ((total + (1 << (c.shift - 1))) >> c.shift) + c.zero_point
    return np.clip(shifted, c.act_min, c.act_max).astype(np.int8)


def _average(node: AvgPool, images: Codes) -> Codes:
    c = quantise.average_pool(node)
    total = windows(node, images, 0).sum(axis=(4, 5)).astype(np.int64)
    quotient = np.sign(total) * ((np.abs(total) + c.count // 2) // c.count)
    return np.clip(quotient, c.act_min, c.act_max).astype(np.int8)
