"""Several simulated machines in one process."""

from collections.abc import Callable

from headrace.config import machine
from headrace_sim.programs import random_program
from headrace_sim.programs.backends import RtlBackend
from headrace_sim.programs.rtl_machine import random_timing


def test_machines_may_be_closed_in_any_order(backend: Callable[[str], RtlBackend]) -> None:
    """Verilator's runtime keeps one context a thread: closing a machine must not disturb the others."""
    case = random_program(machine("tiny"), 7)
    first, second, third = (backend("tiny").machine(case, random_timing(case)) for _ in range(3))
    third.simulator.close()
    expected = first.run(case).ddr.copy()
    first.simulator.close()
    assert (second.run(case).ddr == expected).all()
    second.simulator.close()
