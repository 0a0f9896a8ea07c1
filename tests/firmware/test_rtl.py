"""Compiled networks on the generated hardware: the same bits as the golden model, and the cycles that are promised."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest

from headrace.config import Precision, machine
from headrace_host.benches import conv_cases, gemm_cases
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.errors import DeviceError
from headrace_host.models.graph import Graph
from headrace_host.report import layer_costs, total_cost
from headrace_host.rtl import RtlDevice
from headrace_host.session import Sample, Session, samples
from headrace_sim.rtl import DdrConfig


def run(graph: Graph, name: str, sample: Sample) -> Session:
    """One exact inference on the hardware."""
    session = Session.open(graph, compile_graph(graph, machine(name)), "rtl")
    session.infer(sample)
    assert session.exact
    return session


def test_a_given_memory_keeps_its_timing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, nothing = Mock(), Mock()
    for name, stub in (("RtlSimulator", simulator), ("Driver", nothing), ("build", nothing), ("design", nothing)):
        monkeypatch.setattr(f"headrace_host.rtl.{name}", stub)
    timing = DdrConfig(base=1 << 20, bytes=4096, read_latency=7)
    RtlDevice(machine("tiny"), ddr_base=1 << 16, ddr_bytes=1 << 18, ddr=timing)
    assert simulator.call_args.kwargs["ddr"] == DdrConfig(base=1 << 16, bytes=1 << 18, read_latency=7)


def test_residual_network_on_tiny(graphs: ModuleType) -> None:
    build = graphs.Builder(11, (1, 7, 6, 5))
    a = build.conv(build.source, 6, (3, 3), (2, 1))
    b = build.add(build.conv(a, 6), a)
    out = build.dense(build.flatten(build.pool(b, (4, 6), (1, 1))), 3)
    session = run(build.graph(out), "tiny", Sample("image", build.image()))
    rows = layer_costs(session.model, session.runs)
    total = total_cost(session.model, session.runs)
    assert sum(row.cycles or 0 for row in rows) == total.cycles
    assert all(row.mac_utilization is None or row.mac_utilization <= 1 for row in rows)


def test_a_halted_machine_names_command_and_layer(graphs: ModuleType) -> None:
    """A window too small for the input stops the machine; a correct run afterwards works without a reset pin."""
    build = graphs.Builder(12, (1, 5, 5, 4))
    graph = build.graph(build.conv(build.source, 4))
    model = compile_graph(graph, machine("tiny"))
    device = open_device("rtl", model)
    closed = replace(model, windows=model.windows[1:])
    image = {graph.inputs[0]: build.image()}
    with pytest.raises(DeviceError, match=re.escape("WINDOW in LOAD at command")):
        device.infer(closed, image)
    golden, _ = open_device("golden", model).infer(model, image)
    outputs, _ = device.infer(model, image)
    assert all((outputs[name] == golden[name]).all() for name in golden)


@pytest.mark.regress
@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_resnet8_on_small_machines(name: str, resnet8: Graph, cifar10: list[Path]) -> None:
    """Everything passes through DDR in strips, and weights outgrow the ring."""
    run(resnet8, name, next(samples(resnet8, cifar10[:1])))


def test_resnet8_utilisation_on_base(resnet8: Graph, cifar10: list[Path]) -> None:
    session = run(resnet8, "base", next(samples(resnet8, cifar10[:1])))
    total = total_cost(session.model, session.runs)
    assert total.cycles is not None and total.mac_utilization > 0.93
    softmax = next(row.cycles for row in layer_costs(session.model, session.runs) if row.op == "Softmax")
    assert total.macs / (total.cycles - softmax) / session.model.config.macs_per_cycle > 0.94


def test_visual_wake_words_utilisation_on_base(wake_words: Graph, photographs: list[Path]) -> None:
    session = run(wake_words, "base", next(samples(wake_words, photographs)))
    assert total_cost(session.model, session.runs).mac_utilization > 0.55


@pytest.mark.regress
def test_visual_wake_words_on_tiny(wake_words: Graph, photographs: list[Path]) -> None:
    """Everything passes through DDR in strips; depthwise kernels are wider than the array's own mode."""
    run(wake_words, "tiny", next(samples(wake_words, photographs)))


UTILISATION = {  # of the precision's own peak, at least: in A8W8, A8W4, A4W4
    "gemm-256x256x256": (0.97, 0.955, 0.92),
    "gemm-256x256x256-scales": (0.97, 0.95, 0.915),
    "gemm-197x250x83": (0.84, 0.79, 0.71),
    "conv-3x3s1-64-64-56x56": (0.99, 0.99, 0.985),
    "conv-3x3s2-64-64-56x56": (0.98, 0.975, 0.955),
    "conv-1x1s1-256-64-28x28": (0.97, 0.925, 0.86),
    "depthwise-3x3s1-64-56x56": (0.25,),
    "depthwise-3x3s2-64-56x56": (0.10,),
}
CASES = {case.name: case for case in (*gemm_cases(256, 256, 256), *conv_cases(1))}
QUICK = {("gemm-256x256x256-scales", Precision.A4W4), ("depthwise-3x3s1-64-56x56", Precision.A8W8)}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(
            name,
            precision,
            marks=() if (name, precision) in QUICK else pytest.mark.regress,
            id=f"{name}-{precision.name}",
        )
        for name, least in UTILISATION.items()
        for precision in list(Precision)[: len(least)]
    ],
)
def test_bench_utilisation_on_base(name: str, precision: Precision) -> None:
    case = replace(CASES[name], precision=precision)
    session = run(case.graph(), "base", case.sample())
    assert total_cost(session.model, session.runs).mac_utilization > UTILISATION[name][precision]


def test_every_bench_has_its_figure() -> None:
    assert CASES.keys() == UTILISATION.keys()
