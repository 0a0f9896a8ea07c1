"""Verilog of whole machines: deterministic and without lint that would mean something."""

import subprocess
from pathlib import Path

import pytest

from headrace.config import machine
from headrace.npu import Npu
from headrace.verilog import emit
from headrace_sim.programs.machines import find
from headrace_sim.rtl.machine import TOP, design
from headrace_sim.rtl.toolchain import Verilator

HARMLESS = {
    "DECLFILENAME": "one file holds all modules",
    "PROCASSINIT": "registers have an initial value and are assigned in a process",
    "WIDTHEXPAND": "Yosys writes sums at the width of the result",
    "WIDTHTRUNC": "and takes the low bits of wider ones",
    "UNUSEDSIGNAL": "fields of structures which nobody reads keep their names",
    "CASEINCOMPLETE": "a value assigned before the case is the default",
    "CMPCONST": "limits of command fields that every value of the field obeys",
    "UNSIGNED": "likewise, with limit 0",
    "VARHIDDEN": "a submodule has the name of a signal's scope",
    "UNDRIVEN": "error addresses that are always 0",
}


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(name, marks=pytest.mark.regress) for name in ("base", "edge", "m2-slice"))]
)
def test_lint_finds_nothing(name: str, tmp_path: Path) -> None:
    """Latches, loops, several drivers, missing pins and whatever else is not named above.

    Of m2 fewer rows and columns: Verilator takes more than 17 GiB for the whole.
    """
    source = tmp_path / f"{name}.v"
    source.write_text(design(find(name)).verilog)
    verilator = Verilator()
    waived = [f"-Wno-{warning}" for warning in HARMLESS]
    done = subprocess.run(
        verilator.command(["--lint-only", "-Wall", *waived, "--top-module", TOP, str(source)]),
        env=verilator.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.regress
def test_the_same_machine_gives_the_same_text() -> None:
    config = machine("thin")
    assert emit(Npu(config=config), TOP) == emit(Npu(config=config), TOP)
