"""One layer of a language model measured on the hardware: decode in the steady state, and prefill.

A layer back to back with itself: an image of n layers and one of n + 1 (each layer with a cache of its own) run from
doorbell to interrupt, and the difference is one layer in the steady state. Every run is compared with the golden
machine bit for bit: the rows and all of DDR that the machine may write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from headrace.config import NpuConfig, Precision
from headrace.isa import BY_NAME, COMMAND_BYTES
from headrace.isa.assembler import decode, patched
from headrace_host.compiler.model import CompiledModel
from headrace_host.device import Device, RunStats
from headrace_host.errors import DeviceError
from headrace_host.models.language import LanguageModel
from headrace_host.transformer.runner import TextRunner
from headrace_host.transformer.text import TextMachine

IDLE = {
    "BUS_IDLE_RING": "bus idle: the ring is full, the MAC array waits for the dataflow array",
    "BUS_IDLE_WEIGHT": "bus idle: no weights asked for (tokens, commands)",
    "BUS_IDLE_MEMORY": "bus idle: memory is late, or busy with beats written earlier",
}
WAITS = {
    "MAC_WAIT_WEIGHT": "MAC array waits for weights",
    "MAC_WAIT_ACT": "MAC array waits for activations",
    "MAC_WAIT_ACC": "MAC array waits for an accumulator buffer",
}


@dataclass(frozen=True, kw_only=True)
class LayerCase:
    """``tokens`` tokens after ``position`` earlier ones; ``steady``: one layer between others, else alone."""

    name: str
    tokens: int
    position: int
    steady: bool


CASES = (
    LayerCase(name="smollm2-layer-decode", tokens=1, position=127, steady=True),
    LayerCase(name="smollm2-layer-prefill64", tokens=64, position=0, steady=True),
)
TEXT_SEED = 7
MAC = BY_NAME["MAC"]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Counters of one layer, and what they mean. ``macs`` are those of the linear layers (A8W4), ``attention_macs``
    those with keys and values (A8W8); ``linear_cycles`` are those in which MAC commands of linear layers ran."""

    case: LayerCase
    config: NpuConfig
    counters: dict[str, int]
    macs: int
    attention_macs: int
    linear_cycles: int
    traffic: dict[str, int] = field(default_factory=dict)
    """Beats by kind."""
    gaps: dict[str, int] = field(default_factory=dict)
    """Cycles in which the MAC array had no command, by the part of the layer whose product came next."""

    @property
    def cycles(self) -> int:
        """From doorbell to interrupt, or the difference of two such."""
        return self.counters["CYCLES"]

    @property
    def bus(self) -> float:
        """Share of cycles with an AXI beat."""
        return (self.counters["READ_BEATS"] + self.counters["WRITE_BEATS"]) / self.cycles

    @property
    def array(self) -> float:
        """Share of the peak of each product's precision."""
        config = self.config
        ideal = self.macs / (config.macs_per_cycle * Precision.A8W4.rate) + self.attention_macs / config.macs_per_cycle
        return ideal / self.cycles

    @property
    def linear(self) -> float:
        """Share of the A8W4 peak while linear products run."""
        return self.macs / (self.config.macs_per_cycle * Precision.A8W4.rate * self.linear_cycles)

    def losses(self) -> list[tuple[str, int]]:
        """Cycles by what they were used or lost for; they add up to `cycles`. By the bus for one token, else by the
        MAC array."""
        if self.case.tokens == 1:
            moved = [(f"AXI beats: {what}", beats) for what, beats in self.traffic.items()]
            beats = self.counters["READ_BEATS"] + self.counters["WRITE_BEATS"]
            rest = beats - sum(self.traffic.values())
            both = self.cycles - beats - sum(self.counters[name] for name in IDLE)
            idle = [(text, self.counters[name]) for name, text in IDLE.items()]
            return [
                *moved,
                ("AXI beats: parts of beats at the ends of segments", rest),
                *idle,
                ("less: cycles with a read and a write beat", both),
            ]
        found = [("MAC array computes", self.counters["MAC_ACTIVE"])]
        found += [(text, self.counters[name]) for name, text in WAITS.items()]
        found += [(f"MAC array has no command before: {part}", count) for part, count in self.gaps.items() if count]
        return [*found, ("MAC commands begin and end", self.cycles - sum(count for _, count in found))]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.case.name,
            "machine": self.config.name,
            "tokens": self.case.tokens,
            "context": self.case.position + self.case.tokens,
            "cycles": self.cycles,
            "bus_utilization": round(self.bus, 4),
            "mac_utilization": round(self.array, 4),
            "linear_utilization": round(self.linear, 4),
            "linear_macs": self.macs,
            "attention_macs": self.attention_macs,
            "losses": dict(self.losses()),
            "counters": self.counters,
        }

    def table(self) -> Table:
        """Where the cycles went."""
        title = f"{self.case.name} on {self.config.name}: {self.cycles:,} cycles"
        caption = f"bus {self.bus:.1%}; MAC array {self.array:.1%} of its peak, linear products {self.linear:.2%} of it"
        table = Table("where cycles went", "cycles", "share", title=title, caption=caption)
        for what, count in (loss for loss in self.losses() if loss[1]):
            table.add_row(what, f"{count:,}", f"{count / self.cycles:.2%}")
        table.add_section()
        table.add_row("total", f"{sum(count for _, count in self.losses()):,}", "100.00%")
        return table


def measure(
    model: LanguageModel, config: NpuConfig, case: LayerCase, *, backend: str, progress: Callable[[str], None]
) -> LayerCost:
    """Run a case.

    Raises:
        DeviceError: when the machine's results are not those of the golden machine.
    """
    context = -(-(case.position + case.tokens) // 64) * 64
    figures = []
    for layers in (2, 3) if case.steady else (1,):
        progress(f"{case.name}: {layers} layers")
        text = TextMachine(model, config, context, (0,) * layers, head=False)
        figures.append(_figures(*_run(text, case, backend)))
    found = figures[-1]
    if case.steady:
        found = {
            kind: {name: value - figures[0][kind][name] for name, value in values.items()}
            for kind, values in found.items()
        }
    d = model.dimensions
    seen = sum(case.position + 1 + t for t in range(case.tokens))
    linear = sum(p.weights.shape[0] * p.weights.shape[1] for p in model.layers[0].projections)
    return LayerCost(
        case=case,
        config=config,
        counters=found["counters"],
        macs=linear * case.tokens,
        attention_macs=2 * d.heads * d.head_width * seen,
        linear_cycles=found["linear"]["cycles"],
        traffic=found["traffic"],
        gaps=found["gaps"],
    )


def _figures(model: CompiledModel, stats: RunStats, scalars: dict[int, int]) -> dict[str, dict[str, int]]:
    """What a run says of its layers, kind by kind."""
    return {
        "counters": stats.counters,
        "traffic": _traffic(model, scalars),
        "linear": {"cycles": _linear(model, stats)},
        "gaps": _gaps(model, stats),
    }


def _run(text: TextMachine, case: LayerCase, backend: str) -> tuple[CompiledModel, RunStats, dict[int, int]]:
    """The case's run on ``backend``, after the earlier tokens on the golden machine."""
    tokens = np.random.default_rng(TEXT_SEED).integers(0, text.model.dimensions.vocabulary, case.position + case.tokens)
    words = [int(t) for t in tokens]
    sizes = [64, 1] if case.position >= 64 else [case.tokens]
    golden = TextRunner(text, sizes=sizes)
    position = 0
    while position < case.position:
        size = 64 if case.position - position >= 64 else 1
        golden.run(words[position : position + size], position)
        position += size
    device = golden
    if backend != "golden":
        device = TextRunner(text, sizes=sizes, backend=backend)
        area = _area(golden.device, text)
        device.device.write(0, area)
    rows = device.run(words[case.position :], case.position)
    expected = golden.run(words[case.position :], case.position)
    if backend != "golden" and (
        not np.array_equal(rows, expected) or _area(device.device, text) != _area(golden.device, text)
    ):
        raise DeviceError(f"{case.name}: '{backend}' and the golden machine differ")
    return device.image(case.tokens).models[-1], device.stats, text.scalars(case.position, case.tokens)


def _products(model: CompiledModel, stats: RunStats) -> Iterator[tuple[int, int, int]]:
    """(command, cycles without a MAC command before it, cycles of its own) of each MAC command in order."""
    end = 0
    for span in sorted(stats.spans, key=lambda span: span.end):
        if model.ring[span.index * COMMAND_BYTES] == MAC.opcode:
            begin = max(span.begin, end)
            yield span.index, begin - end, span.end - begin
            end = span.end


def _linear(model: CompiledModel, stats: RunStats) -> int:
    """Cycles in which MAC commands with 4-bit weights ran."""
    cycles = 0
    for index, _, own in _products(model, stats):
        _, values = decode(model.ring[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES])
        cycles += own if values["mode"] == Precision.A8W4 else 0
    return cycles


def _gaps(model: CompiledModel, stats: RunStats) -> dict[str, int]:
    """Cycles without a MAC command by the part of a layer that the next one belongs to; after the last: the tail."""
    parts = {index: layer.name for layer in model.layers for index in layer.commands}
    found: dict[str, int] = {}
    total = 0
    for index, gap, own in _products(model, stats):
        part = re.sub(r"^layer \d+ ", "", parts[index])
        found[part] = found.get(part, 0) + gap
        total += gap + own
    return found | {"the end": stats.counters["CYCLES"] - total} if found else found


def _area(device: Device, text: TextMachine) -> bytes:
    """All that the machine may write."""
    return device.read(0, text.area_bytes)


def _traffic(model: CompiledModel, scalars: dict[int, int]) -> dict[str, int]:
    """Beats by kind, as far as they are full beats; ``scalars`` are the registers that commands add."""
    config = model.config
    beats = {"weights": 0, "keys and values": 0, "constants and tables": 0, "tensors": 0, "stores": 0, "commands": 0}
    for index in range(model.count):
        raw = model.ring[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
        beats["commands"] += COMMAND_BYTES // config.axi_bytes
        command, values = decode(raw)
        f = patched(command, values, scalars)
        if command.name == "WEIGHT":
            size = config.entry_beats + (config.scale_beats if f["scales"] else 0)
            beats["keys and values" if values["patch0"] else "weights"] += (
                f["entries"] * f["outer"] * f["repeat"] * size
            )
        elif command.name == "STORE" or (command.name == "LOAD" and not f["fill"]):
            kind = "stores" if command.name == "STORE" else "constants and tables" if f["dest"] else "tensors"
            beats[kind] += -(-f["n0"] // config.axi_bytes) * f["n1"] * f["n2"] * f["n3"]
    return beats
