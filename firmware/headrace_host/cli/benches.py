"""The command bench."""

from __future__ import annotations

from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from headrace.config import NpuConfig, Precision, machine
from headrace_host.benches import conv_cases, gemm_cases, in_precision
from headrace_host.cli.common import Backend, BackendOption, JsonOption, MachineOption, app, err, guarded, out
from headrace_host.cli.running import lower_graph, model_file, reference_file, run_samples, show, verdict
from headrace_host.errors import HostError
from headrace_host.files import write_json
from headrace_host.models.fetch import fetch_cifar10, fetch_imagenet, fetch_smollm2
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.tflite_import import load_tflite
from headrace_host.precision.choose import Choice
from headrace_host.session import Session, samples
from headrace_host.transformer.bench import CASES as LAYER_CASES
from headrace_host.transformer.bench import measure

E = TypeVar("E", bound=Enum)


class BenchName(StrEnum):
    """Sets of workloads."""

    gemm = "gemm"
    conv = "conv"
    network = "network"
    layer = "layer"


@app.command()
@guarded
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
        choices = _named(Choice, precision)
        sessions = [*_bench_network("resnet8", "resnet-8", fetch_cifar10()[:1], config, backend, choices)]
        sessions += _bench_network("vww", "vww", fetch_imagenet()[:1], config, backend, choices)
    else:
        cases = gemm_cases(size, size, size) if name is BenchName.gemm else conv_cases(divide)
        chosen = [case for p in _named(Precision, precision) for case in in_precision(cases, p, config)]
        sessions = [(case.name, run_samples(case.graph(), config, backend, [case.sample()])) for case in chosen]
    for _, session in sessions:
        show(session)
    if json_file is not None:
        content: dict[str, Any] = {"bench": name.value, "machine": config.name, "backend": backend.value}
        write_json(json_file, content | {"results": [session.bench_result(name) for name, session in sessions]})
    for _, session in sessions:
        verdict(session)


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
    source = model_file(model)
    graph = load_tflite(source)
    work = list(samples(graph, image))
    found = []
    for choice in choices:
        lowered = lower_graph(graph, config, choice, None)
        session = run_samples(lowered.graph, config, backend, work, source=reference_file(source, choice))
        found.append((name if choice is Choice.int8 else f"{name}-{choice.value}", session))
    return found


def _named(kind: type[E], name: str) -> list[E]:
    """The precisions of this kind that ``name`` means."""
    if name == "all":
        return list(kind)
    if name not in kind.__members__:
        raise HostError(f"precision '{name}' does not exist here; choose {', '.join(kind.__members__)} or all")
    return [kind[name]]
