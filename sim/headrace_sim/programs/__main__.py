"""`python -m headrace_sim.programs`: random programs on the golden model and on the generated hardware."""

import json
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from headrace.config import MACHINES, ConfigError, NpuConfig

from .machines import ODD, find
from .runner import Report, Runner

app = typer.Typer(add_completion=False)

SMALL = ("tiny", "odd", "thin", "base")  # named machines that --all runs on besides the odd ones


@dataclass
class _Result:
    """Programs run on a machine, up to the first that failed."""

    machine: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    failure: Report | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"machine": self.machine, "runs": self.runs, "failure": self.failure and self.failure.text()}

    def total(self, what: str) -> str:
        """Sum over the programs, with commas."""
        return f"{sum(run[what] or 0 for run in self.runs):,}"


@app.command(epilog=f"Named machines: {', '.join(MACHINES)}. Odd machines: {', '.join(ODD)}.")
def main(
    names: Annotated[list[str] | None, typer.Option("--machine", help="Machine to run on; may be repeated.")] = None,
    every: Annotated[bool, typer.Option("--all", help=f"Every odd machine, and {', '.join(SMALL)}.")] = False,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    count: Annotated[int, typer.Option(help="Number of seeds.")] = 1,
    layers: Annotated[int, typer.Option(help="Layers of a program.")] = 4,
    reference: Annotated[str, typer.Option(help="Simulator that is right.")] = "golden",
    tested: Annotated[str, typer.Option(help="Simulator under test.")] = "rtl",
    shrink: Annotated[bool, typer.Option(help="Reduce a failing program.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run random programs and compare every byte of DDR; a machine stops at its first failure."""
    chosen = [*ODD, *SMALL] if every else names or ["tiny"]
    try:
        configs = [find(name) for name in chosen]
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    results = []
    for config in configs:
        runner = Runner(config, reference=reference, tested=tested, layers=layers)
        results.append(_run(runner, config, range(seed, seed + count), smaller=shrink, quiet=as_json))
    if as_json:
        print(json.dumps({"machines": [result.to_dict() for result in results]}))
    else:
        _print(results)
    raise typer.Exit(1 if any(result.failure for result in results) else 0)


def _run(runner: Runner, config: NpuConfig, seeds: range, *, smaller: bool, quiet: bool) -> _Result:
    result = _Result(config.name)
    quiet = quiet or not sys.stdout.isatty() or len(seeds) == 1
    for number in track(seeds, description=f"{config.name:>10}", disable=quiet):
        report = runner.run(number, smaller=smaller)
        result.runs.append({"seed": number, "commands": report.case.commands, "cycles": report.cycles})
        if not report.passed:
            result.failure = report
            break
    return result


def _print(results: list[_Result]) -> None:
    for result in results:
        if result.failure is not None:
            print(result.failure.text(), end="\n\n")
    table = Table("machine", "programs", "commands", "cycles", "result")
    for result in results:
        outcome = "all equal" if result.failure is None else f"seed {result.failure.case.seed} differs"
        table.add_row(result.machine, str(len(result.runs)), result.total("commands"), result.total("cycles"), outcome)
    Console().print(table)


if __name__ == "__main__":
    app()
