"""What a run cost, layer by layer: figures for people, and labels for a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from headrace.config import Precision
from headrace.isa import BY_OPCODE, COMMAND_BYTES
from headrace_host.compiler.model import CompiledModel
from headrace_host.device import RunStats


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One row: ``cycles`` and what follows from them are None where time does not exist (golden).

    ``mac_utilization`` is of what the machine can do at most in precision ``peak``.
    """

    name: str
    op: str
    precision: str
    macs: int
    cycles: int | None
    mac_utilization: float | None
    axi_read_bytes: int
    axi_write_bytes: int
    bandwidth_utilization: float | None
    runs_on: str
    peak: str


def layer_costs(model: CompiledModel, runs: Sequence[RunStats]) -> list[Cost]:
    """Costs of each layer, cycles averaged over ``runs``.

    Layers overlap, so time is divided at the ends of MAC commands: the cycles since the end before go to the layer of
    the command that ended, except those in which it had not begun and a VECTOR command ran.
    """
    measured = [_layer_cycles(model, run) for run in runs if run.spans and run.counters]
    rows = []
    for position, layer in enumerate(model.layers):
        cycles = None
        if measured and layer.commands:
            cycles = round(sum(cycles[position] for cycles in measured) / len(measured))
        rows.append(
            _cost(
                model, layer.name, layer.operator, layer.precision, layer.macs, cycles, layer.read_bytes,
                layer.write_bytes, layer.runs_on,
            )
        )  # fmt: skip
    fetched = model.count * COMMAND_BYTES
    rows.append(_cost(model, "commands", "Fetch", "", 0, None, fetched, 0, "control"))
    return rows


def total_cost(model: CompiledModel, runs: Sequence[RunStats]) -> Cost:
    """Costs of one inference from doorbell to interrupt, averaged over ``runs``; bytes include command fetch."""
    counted = [run.counters for run in runs if run.counters]
    cycles = round(sum(c["CYCLES"] for c in counted) / len(counted)) if counted else None
    read = sum(layer.read_bytes for layer in model.layers) + model.count * COMMAND_BYTES
    written = sum(layer.write_bytes for layer in model.layers)
    if counted:
        read = round(sum(c["READ_BEATS"] for c in counted) / len(counted)) * model.config.axi_bytes
        written = round(sum(c["WRITE_BEATS"] for c in counted) / len(counted)) * model.config.axi_bytes
    return _cost(model, "total", "network", network_precision(model), model.macs, cycles, read, written, "")


def network_precision(model: CompiledModel) -> str:
    """The precision of all MAC layers, ``mixed`` when they differ."""
    used = {layer.precision for layer in model.layers if layer.macs}
    return used.pop() if len(used) == 1 else "mixed"


def _cost(
    model: CompiledModel, name: str, op: str, precision: str, macs: int, cycles: int | None, read: int, written: int,
    runs_on: str,
) -> Cost:  # fmt: skip
    config = model.config
    # A network of several precisions is measured against the rate that every machine is named by.
    peak = Precision[precision] if precision in Precision.__members__ else Precision.A8W8
    return Cost(
        name=name,
        op=op,
        precision=precision,
        macs=macs,
        cycles=cycles,
        mac_utilization=round(macs / (cycles * config.macs_per_cycle * peak.rate), 4) if cycles else None,
        axi_read_bytes=read,
        axi_write_bytes=written,
        bandwidth_utilization=round((read + written) / (cycles * config.axi_bytes), 4) if cycles else None,
        runs_on=runs_on,
        peak=peak.name,
    )


def _layer_cycles(model: CompiledModel, run: RunStats) -> list[int]:
    """Cycles of each layer of one run, see `layer_costs`."""
    owner = {i: position for position, layer in enumerate(model.layers) for i in layer.commands}
    by_name: dict[str, list[tuple[int, int, int]]] = {"MAC": [], "VECTOR": []}
    for span in run.spans:
        name = BY_OPCODE[model.ring[span.index * COMMAND_BYTES]].name
        if name in by_name and span.index in owner:
            by_name[name].append((span.end, span.begin, owner[span.index]))
    cycles = [0] * len(model.layers)

    def share(begin: int, end: int, position: int) -> None:
        """Time in which no MAC command is in progress goes to the VECTOR command that was, or else to `position`."""
        running = [v for v in sorted(by_name["VECTOR"]) if v[1] < end and v[0] > begin]
        cycles[running[-1][2] if running else position] += end - begin

    before = position = 0
    for end, begin, position in sorted(by_name["MAC"]):
        share(before, max(begin, before), position)
        cycles[position] += end - max(begin, before)
        before = end
    share(before, run.counters["CYCLES"], position)
    return cycles


def cost_table(title: str, rows: Sequence[Cost]) -> Table:
    """Rows as a table for the terminal."""
    ahead = any(row.bandwidth_utilization is not None and row.bandwidth_utilization > 1 for row in rows)
    note = "bus use above 100 %: the layer's weights streamed while layers before it computed" if ahead else None
    table = Table(title=title, caption=note)
    for column in ("layer", "operator", "precision", "runs on"):
        table.add_column(column)
    for column in ("MACs", "cycles", "MAC use", "read bytes", "written bytes", "bus use"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.name, row.op, row.precision, row.runs_on, f"{row.macs:,}", _number(row.cycles),
            _percent(row.mac_utilization), f"{row.axi_read_bytes:,}", f"{row.axi_write_bytes:,}",
            _percent(row.bandwidth_utilization),
        )  # fmt: skip
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def command_labels(model: CompiledModel) -> dict[int, str]:
    """What each command of the ring is, for a timeline: its name and its layer."""
    names = {index: BY_OPCODE[model.ring[index * COMMAND_BYTES]].name for index in range(model.count)}
    owner = {index: layer.name for layer in model.layers for index in layer.commands}
    return {index: f"{name} {owner.get(index, '')}".strip() for index, name in names.items()}
