"""cocotb tests of the top: registers, and random programs under random back-pressure against the golden model.

The machine and the seeds come from the environment: HEADRACE_MACHINE, HEADRACE_PROGRAMS (how many).
"""

import os
import random
from typing import Any

import cocotb
import numpy as np

from headrace.registers import identity
from headrace_sim.programs import random_program
from headrace_sim.programs.backends import GoldenBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.machines import find

from .machine import Machine

_DDR_BYTES = 1 << 19
_STALLS = (0.0, 0.1, 0.4)


@cocotb.test()
async def registers_identify_the_machine(dut: Any) -> None:
    """Capability registers tell what the machine is; unmapped offsets are refused."""
    config = find(os.environ["HEADRACE_MACHINE"])
    bench = await Machine.start(dut, base=0, size=_DDR_BYTES)
    for name, value in identity(config).items():
        assert await bench.read(name) == value, name
    assert await bench.host.refused(0xFFC)


@cocotb.test()
async def random_programs_equal_golden(dut: Any) -> None:
    """Every byte of DDR equals the golden model's, whatever the bus does; programs follow each other without reset."""
    config = find(os.environ["HEADRACE_MACHINE"])
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    bus = random.Random(cocotb.RANDOM_SEED)
    bench = await Machine.start(dut, base=0, size=_DDR_BYTES)
    bench.host.stall(bus, 0.1)
    for _ in range(int(os.environ["HEADRACE_PROGRAMS"])):
        seed = int(rng.integers(1 << 31))
        case = random_program(config, seed, layers=2)
        probability = bus.choice(_STALLS)
        bench.ddr.stall(bus, probability)
        outcome = await bench.run(case, bus, doorbells=bus.randint(1, 4))
        found = differences(case, GoldenBackend(config).run(case), outcome)
        dut._log.info("program %d: %d commands, %s cycles, stalls %g", seed, case.commands, outcome.cycles, probability)
        assert not found, "\n".join([f"program {seed} (layers=2), cocotb seed {cocotb.RANDOM_SEED}", *found])
