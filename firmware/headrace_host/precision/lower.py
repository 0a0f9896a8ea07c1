"""Graph to graph: INT4 weights and activations in place of INT8 ones, chosen from INT8 codes and calibration images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.config import Precision
from headrace_host.models.graph import Conv2D, DepthwiseConv, FullyConnected, Graph, Node, Softmax, Tensor
from headrace_host.precision.evaluate import Codes, run, run_node, windows

Real = NDArray[np.float64]
Levels = Mapping[str, Precision]
"""Precision by name of node; others stay as they are."""

_SAMPLES = 8_000
"""Output pixels over which a layer's inputs are averaged, about."""

_BIAS_LIMIT = 2.0**28
"""Largest bias, in units of the accumulator: filters of next to no weight get a scale that allows for it."""

_DAMPING = 0.01
"""Part of the mean variance added to every input's, against inputs that hardly vary."""

_CLIPS = np.linspace(0.4, 1.0, 25)
"""Parts of the range that a 4-bit scale is tried for."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs of an INT8 graph and all activations it computes from them."""

    graph: Graph
    images: Codes
    values: dict[str, Codes]

    @classmethod
    def of(cls, graph: Graph, images: Codes) -> Calibration:
        return cls(graph, images, run(graph, images))

    def weights(self, node: Node) -> tuple[Tensor, Tensor]:
        """Weight and bias of a multiplying node."""
        return self.graph.tensors[node.inputs[1]], self.graph.tensors[node.inputs[2]]

    @staticmethod
    def constant(tensor: Tensor) -> Real:
        """The codes of a constant."""
        assert tensor.data is not None
        return tensor.data.astype(np.float64)


def lower(calibration: Calibration, levels: Levels) -> tuple[Graph, dict[str, Codes]]:
    """The graph with the nodes of ``levels`` in their precision, and its activations for the calibration images.

    Nodes are taken in order, so that biases correct the mean error of everything before them too. With A4W4 the
    node's input becomes INT4 (`can_read_int4` tells where that is possible).
    """
    graph, original = calibration.graph, calibration.graph
    for node in original.nodes:
        if levels.get(node.name) is Precision.A4W4:
            graph = _int4_activation(graph, node, calibration.values[node.inputs[0]])
    values, changed = {graph.inputs[0]: calibration.images}, set[str]()
    for position in range(len(original.nodes)):
        node = graph.nodes[position]
        if isinstance(node, Conv2D | FullyConnected) and levels.get(node.name, Precision.A8W8) is not Precision.A8W8:
            graph = _int4_weights(calibration, graph, node, values[node.inputs[0]])
            changed.add(node.output)
        if isinstance(node, Softmax):
            continue
        if node is not original.nodes[position] or not changed.isdisjoint(node.inputs):
            changed.add(node.output)
        if node.output in changed:
            values[node.output] = run_node(graph, node, [values[name] for name in node.inputs if name in values])
        else:
            values[node.output] = calibration.values[node.output]
    return graph, values


def can_lower(node: Node) -> bool:
    """Whether the weights of ``node`` may be INT4; those of depthwise convolutions are too few to matter."""
    return isinstance(node, FullyConnected) or (isinstance(node, Conv2D) and node.groups == 1)


def can_read_int4(graph: Graph, node: Node) -> bool:
    """Whether the input of ``node`` may be INT4: a layer of the MAC array writes it, and nothing else reads it."""
    source = node.inputs[0]
    alone = len(list(graph.consumers(source))) == 1 and source not in graph.outputs
    return alone and isinstance(graph.producer(source), Conv2D | DepthwiseConv | FullyConnected)


def _with(graph: Graph, *tensors: Tensor, node: Node | None = None) -> Graph:
    """``graph`` with some tensors, and one node, replaced."""
    nodes = tuple(node if node is not None and n.output == node.output else n for n in graph.nodes)
    return replace(graph, tensors=graph.tensors | {t.name: t for t in tensors}, nodes=nodes)


def _int4_activation(graph: Graph, reader: Node, codes: Codes) -> Graph:
    """The input of ``reader`` as INT4 with the scale and zero point of least squared error over ``codes``.

    The reader's weights become zeros of INT4, which `_int4_weights` then replaces.
    """
    tensor, node = graph.tensors[reader.inputs[0]], graph.producer(reader.inputs[0])
    assert isinstance(node, Conv2D | DepthwiseConv | FullyConnected)
    sample = codes.reshape(-1)[:: max(1, codes.size >> 18)].astype(np.float64) - tensor.zero_point
    low, high = min(0.0, float(sample.min())), max(1e-6, float(sample.max()))
    tried = []
    for clip in _CLIPS:
        step = (high - low) * clip / 15
        zero = int(np.clip(np.rint(-8 - low * clip / step), -8, 7))
        error = (np.clip(np.rint(sample / step) + zero, -8, 7) - zero) * step - sample
        tried.append((float(np.square(error).mean()), step, zero))
    _, step, zero = min(tried)
    bounds = [
        int(np.clip(np.rint((code - tensor.zero_point) / step) + zero, -8, 7)) for code in (node.act_min, node.act_max)
    ]
    scale = (tensor.scale * np.float32(step)).astype(np.float32)
    changed = replace(tensor, dtype="int4", scale=scale, zero_point=zero)
    weight = graph.tensors[reader.inputs[1]]
    empty = replace(weight, dtype="int4", data=np.zeros(weight.shape, np.int8))
    return _with(graph, changed, empty, node=replace(node, act_min=bounds[0], act_max=bounds[1]))


def _int4_weights(calibration: Calibration, graph: Graph, node: Conv2D | FullyConnected, codes: Codes) -> Graph:
    """Weights of ``node`` as INT4, its bias corrected; ``codes`` are its inputs in the lowered graph."""
    weight, bias = calibration.weights(node)
    filters = weight.shape[0]
    scales = np.broadcast_to(weight.scale.astype(np.float64), (filters,))
    real = calibration.constant(weight).reshape(filters, -1) * scales[:, None]
    seen = _inputs(graph, node, codes)
    mean = seen.mean(axis=0, dtype=np.float64)
    wanted = _inputs(calibration.graph, node, calibration.values[node.inputs[0]]).mean(axis=0, dtype=np.float64)
    before = float(calibration.graph.tensors[node.inputs[0]].scalar_scale)
    target = (calibration.constant(bias) * scales + real @ wanted) * before
    least = np.abs(target) / (float(graph.tensors[node.inputs[0]].scalar_scale) * _BIAS_LIMIT)
    step, quantised = quantise_weights(real, _covariance(seen), least)
    factor = float(graph.tensors[node.inputs[0]].scalar_scale) * step
    data = np.clip(np.rint(target / factor - quantised @ mean), -(2.0**31), 2.0**31 - 1).astype(np.int32)
    small = replace(
        weight, dtype="int4", scale=step.astype(np.float32), data=quantised.astype(np.int8).reshape(weight.shape)
    )
    return _with(graph, small, replace(bias, data=data, scale=factor.astype(np.float32)))


def quantise_weights(real: Real, covariance: Real, least: Real) -> tuple[Real, Real]:
    """Scale of each filter of ``real`` [filters, terms] and its codes -8..7 with little error in the layer's output.

    The scale, at least ``least``, is the best of several clipped ranges when every weight is rounded on its own.
    Then weights are rounded in order, and those that follow take up each error as far as inputs of the given
    covariance allow (GPTQ).
    """
    step = np.maximum(_best_scale(real, np.diag(covariance)), least).astype(np.float32).astype(np.float64)
    damped = covariance + np.eye(len(covariance)) * (_DAMPING * np.diag(covariance).mean() + 1e-6)
    share = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, codes = real.copy(), np.zeros_like(real)
    for term in range(real.shape[1]):
        codes[:, term] = np.clip(np.rint(rest[:, term] / step), -8, 7)
        error = (rest[:, term] - codes[:, term] * step) / share[term, term]
        rest[:, term + 1 :] -= np.outer(error, share[term, term + 1 :])
    return step, codes


def _best_scale(real: Real, variance: Real) -> Real:
    largest = np.maximum(np.abs(real).max(axis=1), 1e-12)
    best, step = np.full(len(real), np.inf), np.ones(len(real))
    for clip in _CLIPS:
        trial = (clip * largest / 7).astype(np.float32).astype(np.float64)
        error = np.square(real - np.clip(np.rint(real / trial[:, None]), -8, 7) * trial[:, None]) @ variance
        better = error < best
        best[better], step[better] = error[better], trial[better]
    return step


def _covariance(rows: NDArray[np.float32]) -> Real:
    centred = rows - rows.mean(axis=0)
    return (centred.T @ centred).astype(np.float64) / len(rows)


def _inputs(graph: Graph, node: Conv2D | FullyConnected, codes: Codes) -> NDArray[np.float32]:
    """Inputs of a filter less the zero point [samples, terms], terms in the order of its weights."""
    values = codes.astype(np.float32) - graph.tensors[node.inputs[0]].zero_point
    if isinstance(node, FullyConnected):
        return values.reshape(len(values), -1)
    seen = windows(node, values, 0)
    places = np.prod(seen.shape[:3], dtype=int)
    chosen = np.arange(0, places, max(1, places // _SAMPLES))
    rows = seen[np.unravel_index(chosen, seen.shape[:3])].transpose(0, 2, 3, 1)
    return rows.reshape(len(rows), -1)
