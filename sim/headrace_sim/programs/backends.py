"""Simulators that run a case, behind one small interface."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.config import NpuConfig
from headrace_sim.golden import GoldenMachine, Window

from .case import Case

__all__ = ["BACKENDS", "Backend", "GoldenBackend", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a run left: `error` in words or None, the END value, all of DDR, and cycles where time exists."""

    error: str | None
    end_value: int | None
    ddr: npt.NDArray[np.uint8]
    cycles: int | None = None


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


BACKENDS: dict[str, Callable[[NpuConfig], Backend]] = {"golden": GoldenBackend}
