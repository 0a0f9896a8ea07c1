"""A machine under test: clock, reset, registers by name, DDR, and the run of a random program."""

import random
from typing import Any

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge

from headrace.registers import REGISTERS, State
from headrace_sim.programs import Case
from headrace_sim.programs.outcome import Outcome

from .axi import Ddr, Host

__all__ = ["PERIOD_NS", "Machine"]

PERIOD_NS = 10
_DONE, _ERROR = 1, 2
_RESET, _SNAPSHOT, _CLEAR = 1, 4, 8


class Machine:
    """The top `dut` with clock running, out of reset, and `size` bytes of DDR at `base`."""

    def __init__(self, dut: Any, *, base: int, size: int) -> None:
        self.dut = dut
        self.ddr = Ddr(dut, base=base, size=size)
        self.host = Host(dut)

    @classmethod
    async def start(cls, dut: Any, *, base: int, size: int) -> "Machine":
        """Start the clock and reset the machine."""
        dut.rst.value = 1
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
        machine = cls(dut, base=base, size=size)
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        return machine

    async def write(self, name: str, value: int) -> None:
        """Write a register by name."""
        await self.host.write(REGISTERS[name].offset, value)

    async def read(self, name: str) -> int:
        """Read a register by name."""
        return await self.host.read(REGISTERS[name].offset)

    async def run(self, case: Case, rng: random.Random, *, doorbells: int = 1, timeout: int = 400_000) -> Outcome:
        """Reset by register, run a case to its interrupt, read DDR; the ring's tail advances in `doorbells` steps."""
        await self.write("CONTROL", _RESET)
        while await self.read("STATUS") != State.IDLE:
            pass
        await self.write("CONTROL", _CLEAR)
        self.ddr.write(case.ddr_base, case.ddr.tobytes())
        for number, window in enumerate(case.windows):
            await self.write(f"WINDOW{number}_BASE", window.base)
            await self.write(f"WINDOW{number}_LIMIT", window.limit)
            await self.write(f"WINDOW{number}_FLAGS", window.read | window.write << 1)
        await self.write("RING_BASE_LO", case.ring_base & 0xFFFFFFFF)
        await self.write("RING_BASE_HI", case.ring_base >> 32)
        await self.write("RING_SIZE", case.ring_log2)
        await self.write("IRQ_ENABLE", _DONE | _ERROR)
        tails = sorted(rng.sample(range(1, case.commands), min(doorbells, case.commands) - 1))
        for tail in [*tails, case.commands]:
            await self.write("RING_TAIL", tail)
            await ClockCycles(self.dut.clk, rng.randint(1, 300))
        await self._interrupt(timeout)
        return await self._outcome(case)

    async def _interrupt(self, timeout: int) -> None:
        if not self.dut.irq.value:
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.clk, timeout))
        assert self.dut.irq.value, f"no interrupt after {timeout} cycles"

    async def _outcome(self, case: Case) -> Outcome:
        status = await self.read("IRQ_STATUS")
        await self.write("IRQ_STATUS", status)
        await self.write("CONTROL", _SNAPSHOT)
        error = None
        if status & _ERROR:
            names = ("ERR_CAUSE", "ERR_INDEX", "ERR_ENGINE", "ERR_ADDRESS_LO")
            error = ", ".join([f"{name} {await self.read(name):#x}" for name in names])
        end_value = await self.read("END_VALUE") if status & _DONE else None
        memory = np.frombuffer(self.ddr.read(case.ddr_base, case.ddr.size), np.uint8)
        return Outcome(error, end_value, memory, await self.read("CYCLES_LO"))
