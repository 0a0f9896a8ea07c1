"""Which layers become INT4: by measured change of the logits for each cycle saved, up to a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace_host.models.graph import Conv2D, FullyConnected, Graph, Softmax
from headrace_host.precision.cost import first_layer, int4_activations, layer_cycles
from headrace_host.precision.evaluate import real_logits
from headrace_host.precision.lower import Calibration, can_lower, can_read_int4, lower

BUDGET = 0.11
"""Change of the logits that ``mixed`` may cause, as a part of their standard deviation (root mean square)."""


class Choice(StrEnum):
    """How precisions are chosen."""

    int8 = "int8"  # as the network comes
    w4 = "w4"  # INT4 weights in all layers but the first
    mixed = "mixed"  # INT4 weights and activations where the budget allows


@dataclass(frozen=True, kw_only=True)
class Step:
    """What lowering one layer alone would do: ``loss`` as for `BUDGET`, ``saved`` cycles."""

    node: str
    precision: Precision
    loss: float
    saved: int


@dataclass(frozen=True, kw_only=True)
class Reason:
    """The precision of one layer and why it has it."""

    layer: str
    precision: str
    why: str
    loss: float | None = None
    saved: int = 0


@dataclass(kw_only=True)
class Lowered:
    """A network in chosen precisions. ``loss`` and ``agreement`` compare it with INT8 over the calibration images."""

    choice: Choice
    graph: Graph
    loss: float = 0.0
    agreement: float = 1.0
    reasons: list[Reason] = field(default_factory=list)


Progress = Callable[[str], None]


def choose(
    choice: Choice,
    calibration: Calibration,
    config: NpuConfig,
    *,
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> Lowered:
    """``calibration.graph`` in the precisions of ``choice``; ``progress`` is told what is being tried."""
    search = _Search(calibration, config, budget, progress or (lambda _: None))
    if choice is Choice.int8:
        return Lowered(choice=choice, graph=calibration.graph, reasons=search.reasons({}, {}))
    return search.all_weights() if choice is Choice.w4 else search.mixed()


class _Search:
    def __init__(self, calibration: Calibration, config: NpuConfig, budget: float, progress: Progress) -> None:
        self._calibration, self._config, self._budget, self._progress = calibration, config, budget, progress
        self._graph = calibration.graph
        self._expected = real_logits(self._graph, calibration.values)
        nodes = [n for n in self._graph.nodes if isinstance(n, Conv2D | FullyConnected) and can_lower(n)]
        self._nodes = [n for n in nodes if not first_layer(self._graph, n)]

    def all_weights(self) -> Lowered:
        """INT4 weights in every layer but the first."""
        self._progress("INT4 weights")
        levels = {node.name: Precision.A8W4 for node in self._nodes}
        graph, loss, agreement = self._try(levels)
        why = dict.fromkeys(levels, "INT4 weights in all layers but the first")
        return Lowered(choice=Choice.w4, graph=graph, loss=loss, agreement=agreement, reasons=self.reasons(levels, why))

    def mixed(self) -> Lowered:
        """Steps in order of loss for each cycle saved, each kept when the network as a whole stays in the budget."""
        steps = self._steps()
        levels: dict[str, Precision] = {}
        why: dict[str, str] = {}
        best = self._graph, 0.0, 1.0
        for step in sorted(steps, key=lambda s: s.loss**2 / s.saved):
            if levels.get(step.node, Precision.A8W8) >= step.precision:
                continue
            self._progress(f"{step.node} in {step.precision.name}")
            tried = self._try(levels | {step.node: step.precision})
            if tried[1] <= self._budget:
                levels[step.node], best = step.precision, tried
                why[step.node] = f"the logits of the network change by {tried[1]:.1%} with it"
            elif step.node not in levels:
                why[step.node] = f"{step.precision.name} would change the logits by {tried[1]:.1%}"
        graph, loss, agreement = best
        for node in self._nodes:
            why.setdefault(node.name, "no cycles saved")
        reasons = self.reasons(levels, why, {(s.node, s.precision): s for s in steps})
        return Lowered(choice=Choice.mixed, graph=graph, loss=loss, agreement=agreement, reasons=reasons)

    def _steps(self) -> list[Step]:
        """Every layer lowered alone, where that saves cycles."""
        steps = []
        for node in self._nodes:
            before = layer_cycles(self._config, self._graph, node, Precision.A8W8)
            options = [Precision.A8W4]
            if can_read_int4(self._graph, node) and int4_activations(self._config):
                options.append(Precision.A4W4)
            for precision in options:
                saved = before - layer_cycles(self._config, self._graph, node, precision)
                if saved > 0:
                    self._progress(f"{node.name} alone in {precision.name}")
                    _, loss, _ = self._try({node.name: precision})
                    steps.append(Step(node=node.name, precision=precision, loss=loss, saved=saved))
        return steps

    def _try(self, levels: dict[str, Precision]) -> tuple[Graph, float, float]:
        """The lowered graph, the change of its logits and its agreement with INT8."""
        graph, values = lower(self._calibration, levels)
        found, expected = real_logits(graph, values), self._expected
        loss = float(np.sqrt(np.mean(np.square(found - expected))) / expected.std())
        return graph, loss, float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())

    def reasons(
        self,
        levels: dict[str, Precision],
        why: dict[str, str],
        steps: dict[tuple[str, Precision], Step] | None = None,
    ) -> list[Reason]:
        """One line for every layer that multiplies, and for what is left to the host."""
        lines = []
        names = {node.name for node in self._nodes}
        for node in self._graph.nodes:
            if isinstance(node, Softmax) or self._graph.macs(node) == 0:
                continue
            precision = levels.get(node.name, Precision.A8W8)
            if node.name in names:
                reason = why.get(node.name, "as the network comes")
            elif can_lower(node):
                reason = "the first layer stays INT8: its input is the image"
            else:
                reason = "depthwise and grouped convolutions stay INT8"
            step = (steps or {}).get((node.name, precision))
            saved, loss = (step.saved, step.loss) if step else (0, None)
            lines.append(Reason(layer=node.name, precision=precision.name, why=reason, loss=loss, saved=saved))
        return lines
