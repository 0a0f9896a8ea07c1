"""Commands with bits inverted at random: whatever they mean, the machine obeys the windows and AXI, and recovers."""

from collections.abc import Callable

import numpy as np
import pytest

from headrace.isa.assembler import Program
from headrace.registers import State
from headrace_sim.programs import Case, random_program
from headrace_sim.programs.backends import GoldenBackend, RtlBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.machines import find
from headrace_sim.programs.rtl_machine import ABORT, RtlMachine, random_timing

from .faults import with_bit

PATIENCE = 30_000  # cycles before a run is aborted: a corrupted count may take years


def _corrupt(case: Case, rng: np.random.Generator) -> Case:
    """One to three bits of fields inverted, mostly low ones: others make a command malformed at once."""
    program = Program.from_image(case.image)
    for _ in range(int(rng.integers(1, 4))):
        index = int(rng.integers(case.commands))
        fields = [f for f in program[index][0].fields if f.offset >= 32]
        field = fields[int(rng.integers(len(fields)))]
        bit = min(int(rng.geometric(0.2)) - 1, field.width - 1)
        case = with_bit(case, index, field.offset + bit)
    return case


def _check_recovery(rtl: RtlMachine, case: Case, good: Case) -> None:
    """Run the corrupted case to whatever end, look for writes outside of the windows, then run a good program."""
    rtl.prepare(case, watchdog=5000)
    rtl.write("RING_TAIL", case.commands)
    if not rtl.simulator.run_until_interrupt(PATIENCE):
        rtl.write("CONTROL", ABORT)
        assert rtl.simulator.run_until_interrupt(10_000), "abort did not stop the machine"
        assert rtl.read("STATUS") == State.HALTED
    writable = np.zeros(case.ddr.size, bool)
    for window in case.windows:
        if window.write:
            writable[window.base * 4096 - case.ddr_base : window.limit * 4096 - case.ddr_base] = True
    assert not ((rtl.simulator.memory != case.ddr) & ~writable).any(), "bytes outside of the windows changed"
    found = differences(good, GoldenBackend(good.config).run(good), rtl.run(good))
    assert not found, "\n".join(["a good program afterwards:", *found])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tiny", 40),
        pytest.param("tiny", 1500, marks=pytest.mark.regress),
        pytest.param("odd", 300, marks=pytest.mark.regress),
        pytest.param("thin", 600, marks=pytest.mark.regress),
        pytest.param("five", 300, marks=pytest.mark.regress),
        pytest.param("pair", 300, marks=pytest.mark.regress),
        pytest.param("scaled", 300, marks=pytest.mark.regress),
    ],
)
def test_corrupted_programs(backend: Callable[[str], RtlBackend], name: str, count: int) -> None:
    config = find(name)
    good = random_program(config, 12, layers=2)
    with backend(name).machine(good, random_timing(good)) as rtl:
        for seed in range(count):
            case = _corrupt(random_program(config, seed % 50), np.random.default_rng([seed, 7]))
            try:
                _check_recovery(rtl, case, good)
            except Exception as error:
                raise AssertionError(f"corrupted program {seed} on {name}: {error}") from error
