"""Runs of a compiled network over inputs, compared bit for bit with independent answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_host.compiler.model import Codes, CompiledModel
from headrace_host.device import Device, RunStats, open_device
from headrace_host.errors import HostError
from headrace_host.models.fetch import image_label, load_image
from headrace_host.models.graph import DTYPES, Graph, Tensor
from headrace_host.report import layer_costs, total_cost
from headrace_host.tflite_reference import TfliteReference

Values = dict[str, Codes]


@dataclass(frozen=True)
class Sample:
    """One input: its tensor and, when its file name tells, its class."""

    name: str
    value: Codes
    label: int | None = None


@dataclass
class Session:
    """A network on a device.

    ``golden`` and ``reference`` must give the same answers; ``golden`` is None when it is the device itself.
    """

    graph: Graph
    model: CompiledModel
    backend: str
    device: Device
    golden: Device | None
    reference: TfliteReference | None = None
    runs: list[RunStats] = field(default_factory=list)
    correct: int = 0
    labelled: int = 0
    differing: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls, graph: Graph, model: CompiledModel, backend: str, *, source: Path | None = None, waves: Path | None = None
    ) -> Session:
        """Open the device of kind ``backend`` (golden, rtl) and what checks it.

        ``source`` is the TFLite file of the network, if it has one; ``waves`` records signals of an rtl run.
        """
        device = open_device(backend, model, waves=waves)
        golden = None if backend == "golden" else open_device("golden", model)
        reference = None if source is None else TfliteReference.open(source)
        return cls(graph, model, backend, device, golden, reference)

    def infer(self, sample: Sample) -> Values:
        """The network's outputs for ``sample``; what it cost is added to ``runs``."""
        inputs = {self.graph.inputs[0]: sample.value}
        outputs, stats = self.device.infer(self.model, inputs)
        self.runs.append(stats)
        if not self._agrees(inputs, outputs):
            self.differing.append(sample.name)
        if sample.label is not None:
            self.labelled += 1
            scores = next(iter(outputs.values()))
            self.correct += int(scores.argmax()) == sample.label
        return outputs

    def _agrees(self, inputs: Values, outputs: Values) -> bool:
        """Whether every independent answer equals the machine's outputs bit for bit."""
        answers: list[Values] = []
        if self.golden is not None:
            answers.append(self.golden.infer(self.model, inputs)[0])
        if self.reference is not None:
            name = self.graph.inputs[0]
            self.reference.run(self.graph.tensors[name], inputs[name])
            answers.append({name: self.reference.tensor(name) for name in outputs})
        return all(np.array_equal(outputs[name], answer[name]) for answer in answers for name in outputs)

    @property
    def compared_with(self) -> list[str]:
        """What the outputs were compared with."""
        named = {"golden": self.golden, "tflite": self.reference}
        return [name for name, other in named.items() if other is not None]

    @property
    def exact(self) -> bool | None:
        """Whether every output equalled all it was compared with; None when it was compared with nothing."""
        return not self.differing if self.compared_with else None

    def bench_result(self, name: str) -> dict[str, Any]:
        """What benchmark `name` reports of this network: its total from doorbell to interrupt, layers and counters."""
        found = self.to_dict()
        about = {key: found[key] for key in ("exact", "compared_with", "images", "layers", "counters")}
        return found["total"] | {"name": name} | about

    def to_dict(self) -> dict[str, Any]:
        """Everything measured, for JSON."""
        return {
            "model": self.model.name,
            "machine": self.model.config.name,
            "backend": self.backend,
            "exact": self.exact,
            "compared_with": self.compared_with,
            "top1": self.correct / self.labelled if self.labelled else None,
            "images": len(self.runs),
            "layers": [asdict(row) for row in layer_costs(self.model, self.runs)],
            "total": asdict(total_cost(self.model, self.runs)),
            "counters": [run.counters for run in self.runs if run.counters],
        }


def samples(graph: Graph, paths: Sequence[Path]) -> Iterator[Sample]:
    """Inputs of ``graph`` from image files, ``.npy`` arrays of its type, or folders of them."""
    if len(graph.inputs) != 1:
        raise HostError(f"network '{graph.name}' has {len(graph.inputs)} inputs; one is supported")
    tensor = graph.tensors[graph.inputs[0]]
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".npy"))
            if not files:
                raise HostError(f"{path}: holds no PNG, JPEG or .npy file; give a folder of inputs")
            yield from samples(graph, files)
        elif path.suffix == ".npy":
            yield Sample(path.name, _load_array(path, tensor))
        else:
            label, classes = image_label(path), graph.tensors[graph.outputs[0]].shape[-1]
            known = label is not None and label < classes
            yield Sample(path.name, image_codes(tensor, load_image(path, tensor.shape)), label if known else None)


def image_codes(tensor: Tensor, pixels: NDArray[np.uint8]) -> Codes:
    """Pixels as codes of a network input: as they are for uint8, less 128 for int8."""
    return pixels if tensor.dtype == "uint8" else (pixels ^ 128).view(np.int8)


def _load_array(path: Path, tensor: Tensor) -> Codes:
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise HostError(f"{path}: cannot be read as a numpy array ({error}); save it with numpy.save") from error
    if value.dtype != DTYPES[tensor.dtype] or value.shape != tensor.shape:
        raise HostError(f"{path}: holds {value.dtype}{value.shape}, the network needs {tensor.dtype}{tensor.shape}")
    return np.ascontiguousarray(value)
