"""Runs of a compiled network over inputs, compared bit for bit with independent answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_host.compiler.model import CompiledModel
from headrace_host.device import Device, RunStats, open_device
from headrace_host.errors import HostError
from headrace_host.hostops import finish
from headrace_host.models.fetch import image_label, load_image
from headrace_host.models.graph import Graph
from headrace_host.report import layer_costs, total_cost

Values = dict[str, NDArray[np.int8]]


@dataclass(frozen=True)
class Sample:
    """One input: its tensor and, when its file name tells, its class."""

    name: str
    value: NDArray[np.int8]
    label: int | None = None


@dataclass
class Session:
    """A network on a device. ``golden`` must give the same answers; it is None when the device itself is golden."""

    graph: Graph
    model: CompiledModel
    backend: str
    device: Device
    golden: Device | None
    runs: list[RunStats] = field(default_factory=list)
    correct: int = 0
    labelled: int = 0
    differing: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, graph: Graph, model: CompiledModel, backend: str, *, waves: Path | None = None) -> Session:
        """Open the device of kind ``backend`` (golden, rtl); ``waves`` records signals of an rtl run."""
        device = open_device(backend, model, waves=waves)
        golden = None if backend == "golden" else open_device("golden", model)
        return cls(graph, model, backend, device, golden)

    def infer(self, sample: Sample) -> Values:
        """The network's outputs for ``sample``; what it cost is added to ``runs``."""
        inputs = {self.graph.inputs[0]: sample.value}
        raw, stats = self.device.infer(self.model, inputs)
        self.runs.append(stats)
        if self.golden is not None:
            expected, _ = self.golden.infer(self.model, inputs)
            if any(not np.array_equal(raw[name], expected[name]) for name in expected):
                self.differing.append(sample.name)
        outputs = finish(self.graph, raw)
        if sample.label is not None:
            self.labelled += 1
            scores = next(iter(raw.values()))
            self.correct += int(scores.argmax()) == sample.label
        return outputs

    @property
    def exact(self) -> bool | None:
        """Whether every output equalled the golden model's; None when that is what ran."""
        return None if self.golden is None else not self.differing

    def to_dict(self) -> dict[str, Any]:
        """Everything measured, for JSON."""
        return {
            "model": self.model.name,
            "machine": self.model.config.name,
            "backend": self.backend,
            "exact": self.exact,
            "top1": self.correct / self.labelled if self.labelled else None,
            "images": len(self.runs),
            "layers": [asdict(row) for row in layer_costs(self.model, self.runs)],
            "total": asdict(total_cost(self.model, self.runs)),
            "counters": [run.counters for run in self.runs if run.counters],
        }


def samples(graph: Graph, paths: Sequence[Path]) -> Iterator[Sample]:
    """Inputs of ``graph`` from image files, ``.npy`` arrays of int8, or folders of them."""
    if len(graph.inputs) != 1:
        raise HostError(f"network '{graph.name}' has {len(graph.inputs)} inputs; one is supported")
    shape = graph.tensors[graph.inputs[0]].shape
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".npy"))
            if not files:
                raise HostError(f"{path}: holds no PNG, JPEG or .npy file; give a folder of inputs")
            yield from samples(graph, files)
        elif path.suffix == ".npy":
            yield Sample(path.name, _load_array(path, shape))
        else:
            yield Sample(path.name, load_image(path, shape), image_label(path))


def _load_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.int8]:
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise HostError(f"{path}: cannot be read as a numpy array ({error}); save it with numpy.save") from error
    if value.dtype != np.int8 or value.shape != shape:
        raise HostError(f"{path}: holds {value.dtype}{value.shape}, the network needs int8{shape}")
    return np.ascontiguousarray(value)
