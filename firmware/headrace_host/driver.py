"""The register-level driver: everything a host does to a machine through its AXI4-Lite registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headrace.config import NpuConfig
from headrace.isa import Cause, Engine
from headrace.registers import COUNTERS, REGISTERS, State, identity
from headrace_host.compiler.model import CompiledModel
from headrace_host.errors import DeviceError

PAGE_BITS = 12
WATCHDOG_CYCLES = 100_000
"""Cycles without any progress after which the machine stops; far beyond what DDR latency explains."""


class Bus(Protocol):
    """Access to a machine's registers and its interrupt."""

    def read_register(self, offset: int) -> int:
        """The 32-bit register at ``offset``."""

    def write_register(self, offset: int, value: int) -> None:
        """Write the register at ``offset``."""

    def wait_interrupt(self) -> None:
        """Return when the interrupt is raised; raise `DeviceError` when it never is."""


class Driver:
    """Runs command images on the machine behind ``bus``."""

    def __init__(self, bus: Bus, config: NpuConfig) -> None:
        self._bus, self._config = bus, config

    def check_identity(self) -> None:
        """Raise `DeviceError` unless the hardware is the machine that programs are compiled for."""
        for name, expected in identity(self._config).items():
            found = self._read(name)
            if found != expected:
                raise DeviceError(
                    f"register {name} is {found:#010x}, machine '{self._config.name}' has {expected:#010x}; "
                    "generate the hardware and compile the program for the same machine"
                )

    def execute(self, model: CompiledModel, scalars: Mapping[int, int] | None = None) -> dict[str, int]:
        """Run ``model``'s image from doorbell to interrupt; return the counters of this run.

        ``scalars`` are values of scalar registers by number, which dynamic operands of commands add.
        """
        self._prepare(model)
        for number, value in (scalars or {}).items():
            self._write(f"SCALAR{number}", value)
        self._write("RING_TAIL", model.count)
        self._bus.wait_interrupt()
        done = REGISTERS["IRQ_STATUS"]["done"]
        status = self._read("IRQ_STATUS")
        self._write("IRQ_STATUS", status)
        if not status >> done.lsb & 1:
            raise DeviceError(self._failure(model))
        value = self._read("END_VALUE")
        if value != model.end_value:
            raise DeviceError(f"END_VALUE is {value:#x}, not {model.end_value:#x}; the command image is damaged")
        self._control("snapshot")
        return self._counters()

    def _prepare(self, model: CompiledModel) -> None:
        """Idle machine, open windows, ring in place, counters at zero, interrupts enabled."""
        self._control("reset")
        for _ in range(1000):  # a running machine first drains its bursts
            if self._read("STATUS") == State.IDLE:
                break
        else:
            raise DeviceError("the machine does not return to IDLE after a reset; check its clock and memory")
        self._control("clear")
        for i in range(self._config.windows):
            window = model.windows[i] if i < len(model.windows) else None
            flags = REGISTERS[f"WINDOW{i}_FLAGS"]
            allowed = 0
            if window is not None:
                self._write(f"WINDOW{i}_BASE", window.start >> PAGE_BITS)
                self._write(f"WINDOW{i}_LIMIT", window.end >> PAGE_BITS)
                allowed = window.read << flags["read"].lsb | window.write << flags["write"].lsb
            self._write(f"WINDOW{i}_FLAGS", allowed)
        self._write("RING_BASE_LO", model.ring_address & 0xFFFFFFFF)
        self._write("RING_BASE_HI", model.ring_address >> 32)
        self._write("RING_SIZE", model.ring_log2)
        self._write("WATCHDOG", WATCHDOG_CYCLES)
        irq = REGISTERS["IRQ_STATUS"]
        self._write("IRQ_STATUS", irq.mask)
        self._write("IRQ_ENABLE", irq.mask)

    def _failure(self, model: CompiledModel) -> str:
        cause, engine = Cause(self._read("ERR_CAUSE")).name, Engine(self._read("ERR_ENGINE")).name
        address = self._read("ERR_ADDRESS_HI") << 32 | self._read("ERR_ADDRESS_LO")
        return halted(model, cause, self._read("ERR_INDEX"), engine, address)

    def _counters(self) -> dict[str, int]:
        return {name: self._read(f"{name}_HI") << 32 | self._read(f"{name}_LO") for name, _ in COUNTERS}

    def _control(self, action: str) -> None:
        register = REGISTERS["CONTROL"]
        self._bus.write_register(register.offset, 1 << register[action].lsb)

    def _read(self, name: str) -> int:
        return self._bus.read_register(REGISTERS[name].offset)

    def _write(self, name: str, value: int) -> None:
        self._bus.write_register(REGISTERS[name].offset, value)


def halted(model: CompiledModel, cause: str, index: int, engine: str, address: int) -> str:
    """What to say when a machine stopped with an error."""
    layer = next((layer.name for layer in model.layers if index in layer.commands), "none")
    return f"the machine halted: {cause} in {engine} at command {index} (layer '{layer}'), address {address:#x}"
