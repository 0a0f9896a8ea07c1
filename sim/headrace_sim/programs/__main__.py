"""`python -m headrace_sim.programs`: random programs on the golden model and on the generated hardware."""

import json
from typing import Annotated

import typer
from rich.progress import track

from headrace.config import machine

from .runner import Runner

app = typer.Typer(add_completion=False)


@app.command()
def main(
    machine_name: Annotated[str, typer.Option("--machine", help="Machine to run on.")] = "tiny",
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    count: Annotated[int, typer.Option(help="Number of seeds.")] = 1,
    layers: Annotated[int, typer.Option(help="Layers of a program.")] = 4,
    reference: Annotated[str, typer.Option(help="Simulator that is right.")] = "golden",
    tested: Annotated[str, typer.Option(help="Simulator under test.")] = "rtl",
    shrink: Annotated[bool, typer.Option(help="Reduce a failing program.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run random programs and compare every byte of DDR; stops at the first failure."""
    runner = Runner(machine(machine_name), reference=reference, tested=tested, layers=layers)
    results = []
    failure = None
    for number in track(range(seed, seed + count), description=machine_name, disable=as_json or count == 1):
        report = runner.run(number, smaller=shrink)
        results.append({"seed": number, "commands": report.case.commands, "cycles": report.cycles})
        if not report.passed:
            failure = report
            break
    if as_json:
        print(json.dumps({"machine": machine_name, "runs": results, "failure": failure.text() if failure else None}))
    elif failure:
        print(failure.text())
    else:
        print(
            f"{machine_name}: {len(results)} programs, {sum(r['commands'] or 0 for r in results)} commands, all equal"
        )
    raise typer.Exit(1 if failure else 0)


if __name__ == "__main__":
    app()
