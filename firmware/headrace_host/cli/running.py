"""Running networks for a command: models and precisions by name, progress, tables, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from headrace.config import NpuConfig
from headrace_host.cli.common import Backend, err, out
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.network import compile_graph
from headrace_host.errors import DeviceError
from headrace_host.models.fetch import fetch_imagenet, fetch_resnet8, fetch_visual_wake_words
from headrace_host.models.graph import Graph
from headrace_host.precision.choose import Choice, Lowered, choose
from headrace_host.precision.images import CALIBRATION_IMAGES, calibration_images, image_files
from headrace_host.precision.lower import Calibration
from headrace_host.report import cost_table, layer_costs, total_cost
from headrace_host.session import Sample, Session

ModelArgument = Annotated[str, typer.Argument(help="A .tflite file, or 'resnet8' or 'vww' (fetched at first use).")]
PrecisionOption = Annotated[
    Choice, typer.Option("--precision", help="As the network is, INT4 weights, or by measured loss.")
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option("--calibration", help="Images to calibrate INT4 with, or folders; ImageNet photographs without it."),
]


def model_file(model: str) -> Path:
    known = {"resnet8": fetch_resnet8, "vww": fetch_visual_wake_words}
    return known[model]() if model in known else Path(model)


def reference_file(source: Path, choice: Choice) -> Path | None:
    """The file whose results the network must equal; none when it was changed."""
    return source if choice is Choice.int8 else None


def calibration_files(paths: list[Path] | None) -> tuple[str, list[Path]]:
    """What calibration images are made of, in words and as files."""
    if paths:
        return ", ".join(str(path) for path in paths), image_files(paths)
    photographs = fetch_imagenet()
    return f"{len(photographs)} ImageNet photographs, cropped, mirrored and brightened at random", photographs


def calibrated(graph: Graph, files: list[Path]) -> Calibration:
    """What ``graph`` does with images made of ``files``."""
    return Calibration.of(graph, calibration_images(graph, files, CALIBRATION_IMAGES))


def lower_graph(graph: Graph, config: NpuConfig, choice: Choice, calibration: list[Path] | None) -> Lowered:
    """``graph`` in the chosen precisions."""
    if choice is Choice.int8:
        return Lowered(choice=choice, graph=graph)
    _, files = calibration_files(calibration)
    with err.status("Calibrating") as status:
        return choose(choice, calibrated(graph, files), config, progress=status.update)


def run_samples(
    graph: Graph,
    config: NpuConfig,
    backend: Backend,
    work: list[Sample],
    *,
    source: Path | None = None,
    waves: Path | None = None,
    classes: tuple[str, ...] = (),
) -> Session:
    """Compile, open the device and run every sample, showing progress."""
    model: CompiledModel = compile_graph(graph, config)
    with err.status(f"Preparing machine {config.name} ({backend.value}); the first rtl build takes a while"):
        session = Session.open(graph, model, backend.value, source=source, waves=waves)
    for sample in track(work, description="Running", console=err, transient=True, disable=not err.is_terminal):
        outputs = session.infer(sample)
        if classes and sample.label is not None:
            scores = next(iter(outputs.values())).reshape(-1)
            best = int(scores.argmax())
            mark = "" if best == sample.label else f"   (labelled {classes[sample.label]})"
            confidence = (int(scores[best]) + 128) / 256
            out.print(f"{sample.name:20} {classes[best]:11} {confidence:4.0%}{mark}", highlight=False)
    return session


def show(session: Session) -> None:
    """Table of layers and a summary."""
    total = total_cost(session.model, session.runs)
    rows = [*layer_costs(session.model, session.runs), total]
    out.print(cost_table(f"{session.model.name} on {session.model.config.name} ({session.backend})", rows))
    if total.precision == "mixed":
        out.print(f"MAC use of the total is of what the machine can do in {total.peak}", highlight=False)
    if session.labelled:
        out.print(f"top-1: {session.correct} of {session.labelled}")
    if session.exact:
        names = " and ".join({"golden": "the golden model", "tflite": "TFLite"}[n] for n in session.compared_with)
        out.print(f"{len(session.runs)} of {len(session.runs)} outputs equal {names} bit for bit")


def verdict(session: Session) -> None:
    if session.exact is False:
        raise DeviceError(
            f"{session.model.name}: outputs of {len(session.differing)} of {len(session.runs)} inputs differ from "
            f"{' or '.join(session.compared_with)} ({session.differing[0]} first); report this with the machine's name"
        )
