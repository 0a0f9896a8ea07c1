"""The command line: machines, run, demo, bench, precision, inspect, kernel, verilog, asm and disasm."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from headrace.config import MACHINES, ConfigError, NpuConfig, Precision, machine
from headrace_host.benches import conv_cases, gemm_cases, in_precision
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.network import compile_graph
from headrace_host.errors import DeviceError, HostError
from headrace_host.files import write_bytes, write_json
from headrace_host.inspection import Inspection
from headrace_host.kernels.explain import load_kernel, parse_shape, passes_json, passes_table
from headrace_host.kernels.running import Lowering
from headrace_host.models.fetch import (
    fetch_cifar10,
    fetch_imagenet,
    fetch_resnet8,
    fetch_smollm2,
    fetch_visual_wake_words,
)
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.graph import Graph
from headrace_host.models.tflite_import import load_tflite
from headrace_host.precision.choose import BUDGET, Choice, Lowered, choose
from headrace_host.precision.images import CALIBRATION_IMAGES, calibration_images, image_files
from headrace_host.precision.lower import Calibration
from headrace_host.precision.study import choice_table, reason_table, study
from headrace_host.report import command_labels, cost_table, layer_costs, total_cost
from headrace_host.session import Sample, Session, samples
from headrace_host.transformer.bench import CASES as LAYER_CASES
from headrace_host.transformer.bench import measure
from headrace_sim.rtl.trace import chrome_trace

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, highlight=False)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PERSON_CLASSES = ("person", "no person")
PHOTOGRAPHS = {"imagenet_02_438.jpg": 0, "imagenet_09_455.jpg": 1}
"""Photographs of the person detector with what is to be seen: someone pouring from a bottle, a bottle cap."""

P = ParamSpec("P")


class Backend(StrEnum):
    """What executes the commands."""

    golden = "golden"
    rtl = "rtl"


class BenchName(StrEnum):
    """Sets of workloads."""

    gemm = "gemm"
    conv = "conv"
    network = "network"
    layer = "layer"


MachineOption = Annotated[str, typer.Option("--machine", "-m", help="A machine of `headrace machines`.")]
BackendOption = Annotated[Backend, typer.Option(help="golden: numpy model; rtl: the generated Verilog.")]
PrecisionOption = Annotated[
    Choice, typer.Option("--precision", help="As the network is, INT4 weights, or by measured loss.")
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option("--calibration", help="Images to calibrate INT4 with, or folders; ImageNet photographs without it."),
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


def _fail(error: Exception) -> NoReturn:
    """One line, no traceback. Status 1: the machine went wrong; 2: what the user gave does not work."""
    text = " ".join(str(error).split())
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(1 if isinstance(error, DeviceError) else 2)


def _guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors a user can act on into one line and an exit status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (HostError, ConfigError) as error:
            _fail(error)

    return run


@app.command()
@_guarded
def machines(as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False) -> None:
    """List the machines that can be generated."""
    if as_json:
        described = [
            config.to_dict() | {"macs_per_cycle": config.macs_per_cycle, "warnings": config.warnings()}
            for config in MACHINES.values()
        ]
        typer.echo(json.dumps({"machines": described}, indent=2))
        return
    table = Table()
    for column in ("machine", "MACs a cycle", "R x C x K", "T", "S x L", "AXI bits", "scratchpad", "weight ring"):
        table.add_column(column)
    for c in MACHINES.values():
        table.add_row(
            c.name, str(c.macs_per_cycle), f"{c.rows} x {c.cols} x {c.lanes}", str(c.accs),
            f"{c.columns} x {c.vector_lanes}", str(c.axi_bits), f"{c.spad_bytes} B", f"{c.ring_bytes} B",
        )  # fmt: skip
    out.print(table)


ModelArgument = Annotated[str, typer.Argument(help="A .tflite file, or 'resnet8' or 'vww' (fetched at first use).")]


@app.command()
@_guarded
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
    source = _model_file(model)
    graph = load_tflite(source)
    work = list(samples(graph, inputs))
    chosen = _lowered(graph, config, precision, calibration)
    session = _run(chosen.graph, config, backend, work, source=_reference(source, precision), waves=waves)
    _show(session)
    if json_file is not None:
        write_json(json_file, session.to_dict())
    if timeline_file is not None:
        spans, labels = session.runs[0].spans, command_labels(session.model)
        write_json(timeline_file, chrome_trace(spans, labels=labels))
    _verdict(session)


@app.command()
@_guarded
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
    chosen = _lowered(graph, config, precision, None)
    reference = _reference(source, precision)
    sessions = [_run(chosen.graph, config, backend, work, source=reference, classes=CIFAR10_CLASSES)]
    _show(sessions[0])
    if precision is Choice.int8:
        graph = load_tflite(detector)
        work = [replace(s, label=PHOTOGRAPHS[s.name]) for s in samples(graph, photographs) if s.name in PHOTOGRAPHS]
        sessions.append(_run(graph, config, backend, work, source=detector, classes=PERSON_CLASSES))
        _show(sessions[1])
    if json_file is not None:
        others = {session.model.name: session.to_dict() for session in sessions[1:]}
        write_json(json_file, sessions[0].to_dict() | {"networks": others})
    for session in sessions:
        _verdict(session)


@app.command()
@_guarded
def bench(
    name: Annotated[BenchName, typer.Argument(help="Which workloads.")],
    machine_name: MachineOption = "base",
    backend: BackendOption = Backend.rtl,
    json_file: JsonOption = None,
    precision: Annotated[
        str, typer.Option(help="A8W8, A8W4, A4W4 (gemm, conv); int8, w4, mixed (network); or all of these.")
    ] = "all",
    size: Annotated[int, typer.Option(min=1, help="M = K = N of gemm.")] = 256,
    divide: Annotated[int, typer.Option(min=1, max=16, help="Divide the channels of conv, for small machines.")] = 1,
) -> None:
    """Measure MAC and bus utilisation from doorbell to interrupt; `layer`: one transformer layer, between others.

    Example: headrace bench gemm --machine base --precision A4W4 --json gemm.json
    """
    config = machine(machine_name)
    if name is BenchName.layer:
        _bench_layer(config, backend, json_file)
        return
    if name is BenchName.network:
        choices = _choices(precision)
        sessions = [*_bench_network("resnet8", "resnet-8", fetch_cifar10()[:1], config, backend, choices)]
        sessions += _bench_network("vww", "vww", fetch_imagenet()[:1], config, backend, choices)
    else:
        cases = gemm_cases(size, size, size) if name is BenchName.gemm else conv_cases(divide)
        chosen = [case for p in _precisions(precision) for case in in_precision(cases, p, config)]
        sessions = [(case.name, _run(case.graph(), config, backend, [case.sample()])) for case in chosen]
    for _, session in sessions:
        _show(session)
    if json_file is not None:
        content: dict[str, Any] = {"bench": name.value, "machine": config.name, "backend": backend.value}
        write_json(json_file, content | {"results": [session.bench_result(name) for name, session in sessions]})
    for _, session in sessions:
        _verdict(session)


def _bench_layer(config: NpuConfig, backend: Backend, json_file: Path | None) -> None:
    model = load_gguf(fetch_smollm2())
    found = []
    with err.status("Building") as status:
        for case in LAYER_CASES:
            found.append(measure(model, config, case, backend=backend.value, progress=status.update))
    for cost in found:
        if cost.counters:
            out.print(cost.table())
    if json_file is not None:
        content = {"bench": "layer", "machine": config.name, "backend": backend.value}
        write_json(json_file, content | {"results": [cost.to_dict() for cost in found if cost.counters]})


def _bench_network(
    model: str, name: str, image: list[Path], config: NpuConfig, backend: Backend, choices: list[Choice]
) -> list[tuple[str, Session]]:
    """A network in each choice of precision; names of other choices than int8 end in it."""
    source = _model_file(model)
    graph = load_tflite(source)
    work = list(samples(graph, image))
    found = []
    for choice in choices:
        lowered = _lowered(graph, config, choice, None)
        session = _run(lowered.graph, config, backend, work, source=_reference(source, choice))
        found.append((name if choice is Choice.int8 else f"{name}-{choice.value}", session))
    return found


def _choices(name: str) -> list[Choice]:
    """The choices that ``name`` means for networks."""
    if name == "all":
        return list(Choice)
    if name not in Choice.__members__:
        raise HostError(f"precision '{name}' does not exist here; choose int8, w4, mixed or all")
    return [Choice[name]]


@app.command()
@_guarded
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
    graph = load_tflite(_model_file(model))
    paths = images or (fetch_cifar10() if model == "resnet8" else fetch_imagenet())
    work = list(samples(graph, paths))
    source, files = _calibration_files(calibration)
    with err.status("Calibrating") as status:

        def opened(lowered: Lowered) -> Session:
            return Session.open(lowered.graph, compile_graph(lowered.graph, config), backend.value)

        codes = calibration_images(graph, files, CALIBRATION_IMAGES)
        calibrated = Calibration.of(graph, codes)
        result = study(calibrated, config, work, opened, source=source, budget=budget, progress=status.update)
    for lowered in result.lowered:
        if lowered.choice is Choice.mixed:
            out.print(reason_table(lowered))
    out.print(choice_table(result))
    out.print(f"calibrated with {result.calibration_images} images from {source}", highlight=False)
    if json_file is not None:
        write_json(json_file, result.to_dict())


def _calibration_files(paths: list[Path] | None) -> tuple[str, list[Path]]:
    """What calibration images are made of, in words and as files."""
    if paths:
        return ", ".join(str(path) for path in paths), image_files(paths)
    photographs = fetch_imagenet()
    return f"{len(photographs)} ImageNet photographs, cropped, mirrored and brightened at random", photographs


def _lowered(graph: Graph, config: NpuConfig, choice: Choice, calibration: list[Path] | None) -> Lowered:
    """``graph`` in the chosen precisions."""
    if choice is Choice.int8:
        return Lowered(choice=choice, graph=graph)
    _, files = _calibration_files(calibration)
    with err.status("Calibrating") as status:
        calibrated = Calibration.of(graph, calibration_images(graph, files, CALIBRATION_IMAGES))
        return choose(choice, calibrated, config, progress=status.update)


def _model_file(model: str) -> Path:
    known = {"resnet8": fetch_resnet8, "vww": fetch_visual_wake_words}
    return known[model]() if model in known else Path(model)


def _reference(source: Path, choice: Choice) -> Path | None:
    """The file whose results the network must equal; none when it was changed."""
    return source if choice is Choice.int8 else None


def _precisions(name: str) -> list[Precision]:
    """The precisions that ``name`` means for single layers."""
    if name == "all":
        return list(Precision)
    if name not in Precision.__members__:
        raise HostError(f"precision '{name}' does not exist here; choose A8W8, A8W4, A4W4 or all")
    return [Precision[name]]


@app.command()
@_guarded
def inspect(
    model: Annotated[str, typer.Argument(help="A .gguf file, or 'smollm2' (fetched at first use).")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Show what a language model consists of, in its file and on the machine.

    Example: headrace inspect smollm2
    """
    with err.status("Converting weights"):
        found = Inspection.of(load_gguf(fetch_smollm2() if model == "smollm2" else Path(model)))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    out.print(found.table())
    out.print(found.summary(), highlight=False)


@app.command()
@_guarded
def kernel(
    source: Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="Python file with a @kernel; its name if many.")],
    machine_name: MachineOption = "base",
    shape: Annotated[str, typer.Option(help="Rows, pixels of a row and channels of the image.")] = "64,64,1",
    explain: Annotated[bool, typer.Option("--explain", help="Show what every column does.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Show the passes and beats that an operator written as a Python function costs.

    Example: headrace kernel examples/sobel.py --explain
    """
    lowering = Lowering(load_kernel(source), machine(machine_name), parse_shape(shape))
    lowering.lower()
    if explain:
        out.print(passes_table(lowering))
    found = passes_json(lowering)
    out.print(
        f"{found['kernel']} on {machine_name}: {len(lowering.passes)} passes, {found['beats']:,} beats for {shape}",
        highlight=False,
    )
    if json_file is not None:
        write_json(json_file, found)


@app.command()
@_guarded
def verilog(
    machine_name: MachineOption = "base",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; standard output without it.")] = None,
) -> None:
    """Write the machine as Verilog."""
    from headrace.npu import Npu
    from headrace.verilog import emit

    config = machine(machine_name)
    for warning in config.warnings():
        typer.echo(f"warning: {config.name}: {warning}", err=True)
    text = emit(Npu(config=config), "headrace")
    if output is None:
        typer.echo(text)
        return
    write_bytes(output, text.encode())
    typer.echo(f"wrote {output} ({len(text.splitlines()):,} lines)", err=True)


@app.command()
@_guarded
def asm(
    source: Annotated[Path, typer.Argument(help="Assembly text.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Command image to write.")],
) -> None:
    """Assemble commands into an image of 128 bytes each."""
    from headrace.isa.assembler import Program

    try:
        image = Program.from_text(_read(source).decode()).image()
    except ValueError as error:
        raise HostError(f"{source}: {error}") from error
    write_bytes(output, image)


@app.command()
@_guarded
def disasm(
    source: Annotated[Path, typer.Argument(help="A command image, or a .tflite network to compile.")],
    machine_name: MachineOption = "base",
) -> None:
    """Print a command image, or what a network compiles to, as assembly text."""
    from headrace.isa.assembler import Program

    if source.suffix == ".tflite":
        model = compile_graph(load_tflite(source), machine(machine_name))
        image = model.ring
    else:
        image = _read(source)
    try:
        typer.echo(Program.from_image(image).text(), nl=False)
    except ValueError as error:
        raise HostError(f"{source}: {error}; give a command image of 128 bytes a command") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _run(
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


def _show(session: Session) -> None:
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


def _verdict(session: Session) -> None:
    if session.exact is False:
        raise DeviceError(
            f"{session.model.name}: outputs of {len(session.differing)} of {len(session.runs)} inputs differ from "
            f"{' or '.join(session.compared_with)} ({session.differing[0]} first); report this with the machine's name"
        )


if __name__ == "__main__":
    app()
