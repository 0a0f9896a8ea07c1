"""From graph nodes to units of work: aliases, fusion of residual additions, order of execution."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_host.errors import CompileError
from headrace_host.models.graph import (
    Add,
    AvgPool,
    Conv2D,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Reshape,
    Softmax,
    describe,
)

MacNode = Conv2D | FullyConnected


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
    """Units in order of execution, the nodes left to the host, and tensors that are other tensors under a new shape."""

    units: tuple[Unit, ...]
    host: tuple[Softmax, ...]
    alias: dict[str, str]

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


def plan_work(graph: Graph) -> Work:
    """Units of ``graph``; raise `CompileError` for what the machine cannot do."""
    alias = {node.output: node.inputs[0] for node in graph.nodes if isinstance(node, Reshape)}
    host = tuple(node for node in graph.nodes if isinstance(node, Softmax))
    for softmax in host:
        if softmax.output not in graph.outputs:
            raise CompileError(f"{describe(softmax)}: only a network's last Softmax is supported (it runs on the host)")
    fused = _fusions(graph)
    units = []
    for node in graph.nodes:
        if isinstance(node, Reshape | Softmax) or (isinstance(node, Add) and node.output in fused):
            continue
        if not isinstance(node, Conv2D | FullyConnected | Add | AvgPool | MaxPool):
            raise CompileError(f"{describe(node)}: no lowering for this operator; it cannot run on the machine")
        add = next((graph.producer(name) for name, conv in fused.items() if conv == node.output), None)
        units.append(Unit(node, add if isinstance(add, Add) else None))
    work = Work(tuple(units), host, alias)
    return Work(_order(graph, work), host, alias)


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
