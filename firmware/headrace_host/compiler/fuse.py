"""From graph nodes to units of work: what needs no operation, fusion of residual additions, order of execution."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from headrace_host.errors import CompileError
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
    describe,
)

MacNode = Conv2D | DepthwiseConv | FullyConnected
VectorNode = Add | AvgPool | MaxPool | Quantize | Resize | Softmax | Concat


@dataclass(frozen=True)
class Unit:
    """One layer of the machine: a node and, when fused, the addition that follows it."""

    node: Node
    add: Add | None = None

    @property
    def output(self) -> str:
        """The tensor the unit writes."""
        return self.node.output if self.add is None else self.add.output


@dataclass(frozen=True)
class Work:
    """Units in order of execution, and tensors that need no memory of their own.

    ``alias``: tensors that are others under a new shape. ``parts``: tensors that their producers write as channels
    of a concatenation; (that tensor, first channel).
    """

    units: tuple[Unit, ...]
    alias: dict[str, str]
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)

    def resolve(self, tensor: str) -> str:
        """The tensor whose memory ``tensor`` shares."""
        while tensor in self.alias:
            tensor = self.alias[tensor]
        return tensor

    def activations(self, graph: Graph, unit: Unit) -> tuple[str, ...]:
        """Activation tensors that ``unit`` reads: the node's, then the residual."""
        names = [name for name in unit.node.inputs if graph.tensors[name].data is None]
        if unit.add is not None:
            names += [name for name in unit.add.inputs if name != unit.node.output]
        return tuple(self.resolve(name) for name in names)


def absorb_unsigned(graph: Graph) -> Graph:
    """Let multiplying nodes read uint8 codes themselves where a Quantize node only moves the zero point by 128."""
    absorbed = {}
    for node in graph.nodes:
        if isinstance(node, Quantize):
            source, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
            same = source.dtype == "uint8" and source.zero_point == out.zero_point + 128
            multiplied = all(isinstance(user, MacNode) for user in graph.consumers(node.output))
            if same and np.array_equal(source.scale, out.scale) and multiplied and node.output not in graph.outputs:
                absorbed[node.output] = node.inputs[0]
    if not absorbed:
        return graph
    nodes = (node for node in graph.nodes if node.output not in absorbed)
    rewired = (replace(node, inputs=tuple(absorbed.get(name, name) for name in node.inputs)) for node in nodes)
    return replace(graph, nodes=tuple(rewired))


def plan_work(graph: Graph, word_bytes: int) -> Work:
    """Units of ``graph`` for scratchpad words of ``word_bytes``; raise `CompileError` for what has no lowering."""
    alias = {node.output: node.inputs[0] for node in graph.nodes if isinstance(node, Reshape)}
    fused = _fusions(graph)
    units = []
    for node in graph.nodes:
        if isinstance(node, Reshape) or (isinstance(node, Add) and node.output in fused):
            continue
        if not isinstance(node, MacNode | VectorNode):
            raise CompileError(f"{describe(node)}: no lowering for this operator; it cannot run on the machine")
        add = next((graph.producer(name) for name, conv in fused.items() if conv == node.output), None)
        units.append(Unit(node, add if isinstance(add, Add) else None))
    work = Work(tuple(units), alias)
    return Work(_order(graph, work), alias, _parts(graph, work, word_bytes))


def _parts(graph: Graph, work: Work, word_bytes: int) -> dict[str, tuple[str, int]]:
    """Inputs of concatenations that need no copy; see `Work`.

    The MAC array reads whole words, so what it reads must begin at one.
    """
    parts: dict[str, tuple[str, int]] = {}
    written = {unit.output for unit in work.units if not isinstance(unit.node, Concat)}
    for node in graph.nodes:
        if not isinstance(node, Concat) or node.axis != len(graph.tensors[node.output].shape) - 1:
            continue
        channel = 0
        counts = Counter(node.inputs)
        for name in node.inputs:
            users = [unit.node for unit in work.units if name in work.activations(graph, unit)]
            aligned = channel % word_bytes == 0 or not any(isinstance(user, MacNode) for user in users)
            free = name in written and name not in graph.outputs and name not in parts and counts[name] == 1
            reshaped = any(isinstance(user, Reshape) for user in graph.consumers(name))
            if aligned and free and not reshaped and graph.tensors[name].dtype == "int8":
                parts[name] = (node.output, channel)
            channel += graph.tensors[name].shape[-1]
    return parts


def _fusions(graph: Graph) -> dict[str, str]:
    """Output of each addition that is fused, and output of the convolution that takes it along."""
    fused: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Add) or node.inputs[0] == node.inputs[1]:
            continue
        candidates = []
        for name in node.inputs:
            producer = graph.producer(name)
            alone = len(list(graph.consumers(name))) == 1 and name not in graph.outputs
            if isinstance(producer, Conv2D) and alone and name not in fused.values():
                candidates.append(producer)
        if candidates:
            # The longest reduction hides the drain of both streams best.
            best = max(candidates, key=lambda conv: graph.tensors[conv.inputs[1]].size)
            fused[node.output] = best.output
    return fused


def _order(graph: Graph, work: Work) -> tuple[Unit, ...]:
    """Units so that each follows what it reads and, where there is a choice, does not follow it directly."""
    waiting = list(work.units)
    known = {work.resolve(name) for name in graph.inputs}
    order: list[Unit] = []
    while waiting:
        ready = [unit for unit in waiting if known.issuperset(work.activations(graph, unit))]
        if not ready:
            raise CompileError(f"{describe(waiting[0].node)}: its inputs are never computed")
        last = order[-1].output if order else None
        free = [unit for unit in ready if last not in work.activations(graph, unit)]
        unit = (free or ready)[0]
        waiting.remove(unit)
        known.add(work.resolve(unit.output))
        order.append(unit)
    return tuple(order)
