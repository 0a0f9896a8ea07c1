"""The registers of a simulated machine: run a case, stop it, read why it stopped."""

from types import TracebackType

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import Cause, Engine
from headrace.registers import REGISTERS, State
from headrace_sim.golden import RunError
from headrace_sim.rtl import DdrConfig, RtlSimulator, SimulationError

from .case import Case
from .outcome import Outcome

__all__ = ["RtlMachine", "random_timing"]

DONE, ERROR = 1, 2  # IRQ_STATUS
RESET, ABORT, SNAPSHOT, CLEAR = 1, 2, 4, 8  # CONTROL
_CYCLES_A_COMMAND = 100_000
_RESET_CYCLES = 10_000


def random_timing(case: Case) -> DdrConfig:
    """Memory of the case's size with latency, bandwidth, refresh and stalls chosen by its seed."""
    rng = np.random.default_rng([case.seed, 3])
    slow = bool(rng.random() < 0.5)
    return DdrConfig(
        base=case.ddr_base,
        bytes=case.ddr.size,
        read_latency=int(rng.integers(1, 100)),
        write_latency=int(rng.integers(1, 60)),
        read_outstanding=int(rng.choice([1, 2, 64])),
        write_outstanding=int(rng.choice([1, 2, 64])),
        beats_den=int(rng.integers(1, 4)) if slow else 1,
        row_miss=int(rng.integers(0, 20)) if slow else 0,
        refresh_interval=500 if slow else 0,
        refresh_cycles=40 if slow else 0,
        turnaround=int(rng.integers(0, 10)) if slow else 0,
        stall_per_1024=int(rng.choice([0, 100, 600])),
        seed=int(rng.integers(1, 1 << 32)),
    )


class RtlMachine:
    """One simulated machine; cases may follow each other without reset."""

    def __init__(self, config: NpuConfig, simulator: RtlSimulator) -> None:
        self._config = config
        self.simulator = simulator
        simulator.reset()

    def __enter__(self) -> "RtlMachine":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.simulator.close()

    def write(self, name: str, value: int) -> None:
        """Write a register by name."""
        self.simulator.write_register(REGISTERS[name].offset, value)

    def read(self, name: str) -> int:
        """Read a register by name."""
        return self.simulator.read_register(REGISTERS[name].offset)

    def run(self, case: Case) -> Outcome:
        """Reset by register, put the case into DDR and run it to END or to an error."""
        self.prepare(case)
        self.write("RING_TAIL", case.commands)
        return self.finish(case)

    def prepare(self, case: Case, *, watchdog: int = 20_000) -> None:
        """Everything but the doorbell."""
        self.write("CONTROL", RESET)
        for _ in range(_RESET_CYCLES):
            if self.read("STATUS") == State.IDLE:
                break
        else:
            raise SimulationError("the machine does not become idle")
        self.write("CONTROL", CLEAR)
        self.write("IRQ_STATUS", DONE | ERROR)
        self.simulator.write_memory(case.ddr_base, case.ddr)
        self.set_windows(case)
        self.write("RING_BASE_LO", case.ring_base & 0xFFFFFFFF)
        self.write("RING_BASE_HI", case.ring_base >> 32)
        self.write("RING_SIZE", case.ring_log2)
        self.write("IRQ_ENABLE", DONE | ERROR)
        self.write("WATCHDOG", watchdog)

    def set_windows(self, case: Case) -> None:
        """Open the address windows of a case."""
        for number, window in enumerate(case.windows):
            self.write(f"WINDOW{number}_BASE", window.base)
            self.write(f"WINDOW{number}_LIMIT", window.limit)
            self.write(f"WINDOW{number}_FLAGS", window.read | window.write << 1)

    def finish(self, case: Case) -> Outcome:
        """Wait for the interrupt, read what the run left, and clear the interrupt."""
        if not self.simulator.run_until_interrupt(case.commands * _CYCLES_A_COMMAND):
            return Outcome("no interrupt", None, self._memory(case))
        status = self.read("IRQ_STATUS")
        self.write("CONTROL", SNAPSHOT)
        cycles = self.read("CYCLES_LO")
        error = str(self.error()) if status & ERROR else None
        end_value = self.read("END_VALUE") if status & DONE else None
        self.write("IRQ_STATUS", status)
        return Outcome(error, end_value, self._memory(case), cycles)

    def error(self) -> RunError:
        """The error registers."""
        address = self.read("ERR_ADDRESS_LO") | self.read("ERR_ADDRESS_HI") << 32
        return RunError(Cause(self.read("ERR_CAUSE")), self.read("ERR_INDEX"), Engine(self.read("ERR_ENGINE")), address)

    def _memory(self, case: Case) -> np.ndarray:
        first = case.ddr_base - self.simulator.ddr.base
        return self.simulator.memory[first : first + case.ddr.size].copy()
