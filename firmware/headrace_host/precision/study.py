"""What each choice of precision costs and keeps: accuracy, agreement with INT8, memory traffic and cycles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from headrace.config import NpuConfig
from headrace_host.precision.choose import BUDGET, Choice, Lowered, Progress, choose
from headrace_host.precision.lower import Calibration
from headrace_host.session import Sample, Session


@dataclass(frozen=True, kw_only=True)
class Row:
    """One choice. ``agreement`` counts images classified as in INT8; calibration figures are those of `Lowered`."""

    choice: str
    images: int
    labelled: int
    correct: int
    agreement: int
    calibration_loss: float
    calibration_agreement: float
    axi_read_bytes: int
    axi_write_bytes: int
    cycles: int | None


@dataclass(kw_only=True)
class Study:
    """All choices for one network on one machine, and why every layer has its precision in each."""

    model: str
    machine: str
    backend: str
    calibration: str
    calibration_images: int
    budget: float
    rows: list[Row] = field(default_factory=list)
    lowered: list[Lowered] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        about = ("model", "machine", "backend", "calibration", "calibration_images", "budget")
        layers = {each.choice.value: [asdict(reason) for reason in each.reasons] for each in self.lowered}
        return {name: getattr(self, name) for name in about} | {
            "choices": [asdict(row) for row in self.rows],
            "layers": layers,
        }


def study(
    calibration: Calibration,
    config: NpuConfig,
    samples: Sequence[Sample],
    open_session: Callable[[Lowered], Session],
    *,
    source: str,
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> Study:
    """Try every choice on ``samples``; ``source`` says where the calibration images are from."""
    graph = calibration.graph
    result = Study(
        model=graph.name, machine=config.name, backend="", calibration=source,
        calibration_images=len(calibration.images), budget=budget,
    )  # fmt: skip
    reference: list[int] = []
    for choice in Choice:
        lowered = choose(choice, calibration, config, budget=budget, progress=progress)
        if progress:
            progress(f"{choice.value}: {len(samples)} images")
        session = open_session(lowered)
        result.backend = session.backend
        found = [int(next(iter(session.infer(sample).values())).argmax()) for sample in samples]
        reference = reference or found
        total = session.bench_result(choice.value)
        result.lowered.append(lowered)
        result.rows.append(
            Row(
                choice=choice.value,
                images=len(found),
                labelled=session.labelled,
                correct=session.correct,
                agreement=sum(a == b for a, b in zip(found, reference, strict=True)),
                calibration_loss=round(lowered.loss, 4),
                calibration_agreement=round(lowered.agreement, 4),
                axi_read_bytes=total["axi_read_bytes"],
                axi_write_bytes=total["axi_write_bytes"],
                cycles=total["cycles"],
            )
        )
    return result


def choice_table(result: Study) -> Table:
    """The choices beside each other."""
    table = Table(title=f"{result.model} on {result.machine} ({result.backend})")
    for column in (
        "choice",
        "top-1",
        "as INT8",
        "calibration: as INT8",
        "logits change by",
        "read bytes",
        "written bytes",
    ):
        table.add_column(column, justify="left" if column == "choice" else "right")
    table.add_column("cycles", justify="right")
    for row in result.rows:
        table.add_row(
            row.choice,
            f"{row.correct} of {row.labelled}" if row.labelled else "-",
            f"{row.agreement} of {row.images}",
            f"{row.calibration_agreement:.0%}",
            f"{row.calibration_loss:.1%}",
            f"{row.axi_read_bytes:,}",
            f"{row.axi_write_bytes:,}",
            "-" if row.cycles is None else f"{row.cycles:,}",
        )
    return table


def reason_table(lowered: Lowered) -> Table:
    """Every layer's precision and why it has it."""
    table = Table(title=f"{lowered.choice.value}: layers")
    for column in ("layer", "precision", "alone, logits change by", "cycles saved (estimate)", "why"):
        table.add_column(column, justify="right" if "change" in column or "saved" in column else "left")
    for reason in lowered.reasons:
        loss = "-" if reason.loss is None else f"{reason.loss:.1%}"
        table.add_row(reason.layer, reason.precision, loss, f"{reason.saved:,}", reason.why)
    return table
