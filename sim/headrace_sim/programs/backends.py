"""Simulators that run a case, behind one small interface."""

from collections.abc import Callable
from typing import Protocol

from headrace.config import NpuConfig
from headrace_sim.golden import GoldenMachine, Window
from headrace_sim.rtl import DdrConfig, RtlSimulator, build
from headrace_sim.rtl.machine import design

from .case import Case
from .outcome import Outcome
from .rtl_machine import RtlMachine, random_timing

__all__ = ["BACKENDS", "Backend", "GoldenBackend", "Outcome", "RtlBackend"]


class Backend(Protocol):
    """Runs cases of one machine, each on a machine fresh from reset with memories of zeros."""

    def run(self, case: Case) -> Outcome:
        """Run to END or to an error."""


class GoldenBackend:
    """The numpy model."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config

    def run(self, case: Case) -> Outcome:
        machine = GoldenMachine(self._config, ddr_base=case.ddr_base, ddr_bytes=case.ddr.size)
        machine.write_ddr(case.ddr_base, case.ddr)
        machine.windows = [Window(w.base, w.limit, w.read, w.write) for w in case.windows]
        result = machine.run(case.ring_base, case.commands, ring_size=case.ring_log2)
        error = None if result.error is None else str(result.error)
        return Outcome(error, result.end_value, machine.ddr.copy())


class RtlBackend:
    """The generated Verilog, compiled, with random timing of DDR."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        self._library = build(design(config))

    def run(self, case: Case) -> Outcome:
        with self.machine(case, random_timing(case)) as machine:
            return machine.run(case)

    def machine(self, case: Case, timing: DdrConfig) -> RtlMachine:
        """A machine with room for the case."""
        return RtlMachine(self._config, RtlSimulator(self._library, ddr=timing))


BACKENDS: dict[str, Callable[[NpuConfig], Backend]] = {"golden": GoldenBackend, "rtl": RtlBackend}
