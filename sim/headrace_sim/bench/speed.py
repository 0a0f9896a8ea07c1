"""cocotb test that times a random program: HEADRACE_MACHINE, HEADRACE_SEED; cycles and seconds into HEADRACE_RESULT."""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import cocotb

from headrace.config import machine
from headrace_sim.programs import random_program

from .machine import Machine


@cocotb.test()
async def timed_program(dut: Any) -> None:
    """Run one program without stalls of the bus."""
    case = random_program(machine(os.environ["HEADRACE_MACHINE"]), int(os.environ["HEADRACE_SEED"]))
    bench = await Machine.start(dut, base=case.ddr_base, size=case.ddr.size)
    begin = time.perf_counter()
    outcome = await bench.run(case, random.Random(0))
    seconds = time.perf_counter() - begin
    assert outcome.error is None, outcome.error
    Path(os.environ["HEADRACE_RESULT"]).write_text(json.dumps({"cycles": outcome.cycles, "seconds": seconds}))
