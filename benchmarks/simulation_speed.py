"""How fast the compiled machine runs from C++ and from cocotb: `python benchmarks/simulation_speed.py --machine base`.

Both run the same random program, memory model included. The rate is that of the fastest
of some runs, in processor time; compilation is not counted.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from headrace.config import NpuConfig, machine
from headrace_sim.bench.build import build as build_for_cocotb
from headrace_sim.bench.build import run as run_cocotb
from headrace_sim.programs import random_program
from headrace_sim.programs.backends import RtlBackend
from headrace_sim.rtl import DdrConfig
from headrace_sim.rtl.machine import design

SEED = 4
REPEATS = 5


def from_cpp(config: NpuConfig) -> float:
    """Cycles a second of the C++ harness."""
    case = random_program(config, SEED)
    with RtlBackend(config).machine(
        case, DdrConfig(base=case.ddr_base, bytes=case.ddr.size, stall_per_1024=100)
    ) as rtl:
        rates = []
        for _ in range(REPEATS):
            begin, cycle = time.process_time(), rtl.simulator.cycle
            rtl.run(case)
            rates.append((rtl.simulator.cycle - cycle) / (time.process_time() - begin))
        return max(rates)


def from_cocotb(config: NpuConfig) -> float:
    """Cycles a second of cocotb with its AXI models."""
    top = design(config)
    directory = build_for_cocotb(top, make="OPT_FAST=-O2 OPT_SLOW=-O0")
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        environment = {
            "HEADRACE_MACHINE": config.name,
            "HEADRACE_SEED": str(SEED),
            "HEADRACE_REPEATS": str(REPEATS),
            "HEADRACE_RESULT": str(results / "speed.json"),
        }
        run, failed = run_cocotb(
            directory, top, "headrace_sim.bench.speed", results=results, seed=0, environment=environment
        )
        if run != 1 or failed:
            raise RuntimeError((results / "log").read_text())
        return float(json.loads((results / "speed.json").read_text())["hz"])


def main(
    name: Annotated[str, typer.Option("--machine", help="Machine to simulate.")] = "base",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print cycles a second from C++ and from cocotb, and their ratio."""
    config = machine(name)
    cpp, cocotb = from_cpp(config), from_cocotb(config)
    if as_json:
        print(json.dumps({"machine": name, "cpp_hz": cpp, "cocotb_hz": cocotb, "ratio": cpp / cocotb}))
    else:
        print(f"{name}: C++ {cpp:,.0f} cycles/s, cocotb {cocotb:,.0f} cycles/s, ratio {cpp / cocotb:.1f}")


if __name__ == "__main__":
    typer.run(main)
