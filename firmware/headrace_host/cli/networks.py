"""Commands that run quantised networks: run, demo, precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headrace.config import machine
from headrace_host.cli.common import Backend, BackendOption, JsonOption, MachineOption, app, err, guarded, out
from headrace_host.cli.running import (
    CalibrationOption,
    ModelArgument,
    PrecisionOption,
    calibrated,
    calibration_files,
    lower_graph,
    model_file,
    reference_file,
    run_samples,
    show,
    verdict,
)
from headrace_host.compiler.network import compile_graph
from headrace_host.errors import HostError
from headrace_host.files import write_json
from headrace_host.models.fetch import fetch_cifar10, fetch_imagenet, fetch_resnet8, fetch_visual_wake_words
from headrace_host.models.tflite_import import load_tflite
from headrace_host.precision.choose import BUDGET, Choice, Lowered
from headrace_host.precision.study import choice_table, reason_table, study
from headrace_host.report import command_labels
from headrace_host.session import Session, samples
from headrace_sim.rtl.trace import chrome_trace

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PERSON_CLASSES = ("person", "no person")
PHOTOGRAPHS = {"imagenet_02_438.jpg": 0, "imagenet_09_455.jpg": 1}
"""Photographs of the person detector with what is to be seen: someone pouring from a bottle, a bottle cap."""


@app.command()
@guarded
def run(
    model: ModelArgument,
    inputs: Annotated[list[Path], typer.Option("--input", "-i", help="Image, .npy file or folder; repeatable.")],
    machine_name: MachineOption = "base",
    backend: BackendOption = Backend.golden,
    json_file: JsonOption = None,
    waves: Annotated[Path | None, typer.Option(help="Record signals of the first input (rtl).")] = None,
    timeline_file: Annotated[
        Path | None, typer.Option("--timeline", help="Write when each command of the first input ran (rtl).")
    ] = None,
    precision: PrecisionOption = Choice.int8,
    calibration: CalibrationOption = None,
) -> None:
    """Run a quantised network over inputs.

    Example: headrace run resnet8 -i photo.png --precision mixed --backend rtl
    """
    if backend is Backend.golden and (waves or timeline_file):
        raise HostError("--waves and --timeline need time, which golden does not have; use --backend rtl")
    config = machine(machine_name)
    source = model_file(model)
    graph = load_tflite(source)
    work = list(samples(graph, inputs))
    chosen = lower_graph(graph, config, precision, calibration)
    session = run_samples(chosen.graph, config, backend, work, source=reference_file(source, precision), waves=waves)
    show(session)
    if json_file is not None:
        write_json(json_file, session.to_dict())
    if timeline_file is not None:
        spans, labels = session.runs[0].spans, command_labels(session.model)
        write_json(timeline_file, chrome_trace(spans, labels=labels))
    verdict(session)


@app.command()
@guarded
def demo(
    machine_name: MachineOption = "base",
    backend: BackendOption = Backend.rtl,
    json_file: JsonOption = None,
    images: Annotated[int, typer.Option(min=1, max=20, help="How many of the 20 images.")] = 20,
    precision: PrecisionOption = Choice.int8,
) -> None:
    """Two networks of MLPerf Tiny: ResNet-8 on 20 labelled CIFAR-10 images, a person detector on two photographs.

    Example: headrace demo --machine base --precision w4
    """
    config = machine(machine_name)
    detector, photographs = fetch_visual_wake_words(), fetch_imagenet()
    source = fetch_resnet8()
    graph = load_tflite(source)
    work = list(samples(graph, fetch_cifar10()[:images]))
    chosen = lower_graph(graph, config, precision, None)
    reference = reference_file(source, precision)
    sessions = [run_samples(chosen.graph, config, backend, work, source=reference, classes=CIFAR10_CLASSES)]
    show(sessions[0])
    if precision is Choice.int8:
        graph = load_tflite(detector)
        work = [replace(s, label=PHOTOGRAPHS[s.name]) for s in samples(graph, photographs) if s.name in PHOTOGRAPHS]
        sessions.append(run_samples(graph, config, backend, work, source=detector, classes=PERSON_CLASSES))
        show(sessions[1])
    if json_file is not None:
        others = {session.model.name: session.to_dict() for session in sessions[1:]}
        write_json(json_file, sessions[0].to_dict() | {"networks": others})
    for session in sessions:
        verdict(session)


@app.command()
@guarded
def precision(
    model: ModelArgument,
    machine_name: MachineOption = "base",
    backend: BackendOption = Backend.golden,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", "-i", help="Images to classify, or folders; labelled when a name ends in _<class>."),
    ] = None,
    calibration: CalibrationOption = None,
    budget: Annotated[float, typer.Option(min=0, help="How far mixed may change the logits, relative.")] = BUDGET,
    json_file: JsonOption = None,
) -> None:
    """Compare INT8, INT4 weights and mixed precision: accuracy, memory traffic, cycles, and why.

    Without --images: the 20 CIFAR-10 images (resnet8), else a few ImageNet photographs. Without --calibration: crops of
    these photographs, mirrored and brightened at random; other images than those classified only with resnet8.

    Example: headrace precision resnet8 --machine base --json precision.json
    """
    config = machine(machine_name)
    graph = load_tflite(model_file(model))
    paths = images or (fetch_cifar10() if model == "resnet8" else fetch_imagenet())
    work = list(samples(graph, paths))
    source, files = calibration_files(calibration)
    with err.status("Calibrating") as status:

        def opened(lowered: Lowered) -> Session:
            return Session.open(lowered.graph, compile_graph(lowered.graph, config), backend.value)

        result = study(
            calibrated(graph, files), config, work, opened, source=source, budget=budget, progress=status.update
        )
    for lowered in result.lowered:
        if lowered.choice is Choice.mixed:
            out.print(reason_table(lowered))
    out.print(choice_table(result))
    out.print(f"calibrated with {result.calibration_images} images from {source}", highlight=False)
    if json_file is not None:
        write_json(json_file, result.to_dict())
