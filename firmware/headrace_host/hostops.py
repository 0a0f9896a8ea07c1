"""Operators that the host computes after the machine: the last Softmax of a classifier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_host.models.graph import Graph, Softmax


def softmax(graph: Graph, node: Softmax, logits: NDArray[np.int8]) -> NDArray[np.int8]:
    """TFLite's int8 softmax over the last axis: fp32 throughout, rounded half to even."""
    source, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    scale = np.float32(source.scalar_scale * np.float32(node.beta))
    shifted = logits.astype(np.int32) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(scale * shifted.astype(np.float32))
    total = exponentials.sum(axis=-1, keepdims=True, dtype=np.float32)
    codes = np.rint(exponentials / (total * output.scalar_scale)).astype(np.int64) + output.zero_point
    return np.clip(codes, -128, 127).astype(np.int8)


def finish(graph: Graph, outputs: dict[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int8]]:
    """The network's outputs from those of the machine."""
    values = dict(outputs)
    for node in graph.nodes:
        if isinstance(node, Softmax):
            values[node.output] = softmax(graph, node, values[node.inputs[0]])
    return {name: values[name] for name in graph.outputs}
