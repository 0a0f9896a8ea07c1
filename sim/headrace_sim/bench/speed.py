"""cocotb test that times a random program.

HEADRACE_MACHINE, HEADRACE_SEED and HEADRACE_REPEATS say what runs; the rate of the fastest run, in cycles a second of
processor time, goes into the file HEADRACE_RESULT.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.utils import get_sim_time

from headrace.config import machine
from headrace_sim.programs import random_program

from .machine import PERIOD_NS, Machine

STALLS = 0.1


@cocotb.test()
async def timed_program(dut: Any) -> None:
    """Run one program with the stalls of the bus that the benches have."""
    case = random_program(machine(os.environ["HEADRACE_MACHINE"]), int(os.environ["HEADRACE_SEED"]))
    bench = await Machine.start(dut, base=case.ddr_base, size=case.ddr.size)
    rng = random.Random(0)
    bench.ddr.stall(rng, STALLS)
    bench.host.stall(rng, STALLS)
    rates = []
    for _ in range(int(os.environ["HEADRACE_REPEATS"])):
        seconds, now = time.process_time(), get_sim_time("ns")
        outcome = await bench.run(case, rng)
        assert outcome.error is None, outcome.error
        rates.append((get_sim_time("ns") - now) / PERIOD_NS / (time.process_time() - seconds))
    Path(os.environ["HEADRACE_RESULT"]).write_text(json.dumps({"hz": max(rates)}))
