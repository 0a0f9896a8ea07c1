"""The generated hardware as a device: its Verilog compiled by Verilator, with a memory model behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headrace.config import NpuConfig
from headrace_host.compiler.model import CompiledModel
from headrace_host.device import Device, RunStats
from headrace_host.driver import Driver
from headrace_host.errors import DeviceError
from headrace_sim.rtl import (
    BuildError,
    DdrConfig,
    RtlSimulator,
    SimulationError,
    ToolMissing,
    Waves,
    best_wave_format,
    build,
    spans,
)
from headrace_sim.rtl.machine import design

CYCLES_PER_COMMAND = 2_000_000
"""Cycles a command may take at the most before a run is given up; the watchdog stops a machine that stands still."""


class RtlDevice(Device):
    """The generated Verilog, compiled, with a model of DDR of 60 cycles latency and a beat a cycle."""

    def __init__(
        self,
        config: NpuConfig,
        *,
        ddr_base: int,
        ddr_bytes: int,
        ddr: DdrConfig | None = None,
        waves: Path | None = None,
    ) -> None:
        """``ddr`` gives the memory's timing (its base and size are replaced); ``waves`` records the first run."""
        super().__init__(config)
        memory = replace(ddr or DdrConfig(), base=ddr_base, bytes=ddr_bytes)
        try:
            library = build(design(config), waves=best_wave_format() if waves else Waves.NONE)
            self._simulator = RtlSimulator(library, ddr=memory)
        except (BuildError, ToolMissing) as error:
            raise DeviceError(f"machine '{config.name}' cannot be simulated: {error}") from error
        self._waves = waves
        self._limit = 0
        self._interrupt = 0  # cycle of the last one
        try:
            self._simulator.reset()
            self._driver = Driver(self, config)
            self._driver.check_identity()
        except SimulationError as error:
            raise DeviceError(f"machine '{config.name}': {error}") from error

    def write(self, address: int, content: bytes) -> None:
        self._simulator.write_memory(address, content)

    def read(self, address: int, size: int) -> bytes:
        return self._simulator.read_memory(address, size)

    def execute(self, model: CompiledModel, scalars: Mapping[int, int] | None = None) -> RunStats:
        simulator = self._simulator
        self._limit = model.count * CYCLES_PER_COMMAND
        try:
            if self._waves is not None:
                simulator.start_waves(self._waves)
            simulator.clear_trace()
            counters = self._driver.execute(model, scalars)
            if self._waves is not None:
                simulator.stop_waves()
                self._waves = None
        except SimulationError as error:
            raise DeviceError(f"machine '{self.config.name}': {error}") from error
        start = self._interrupt - counters["CYCLES"]
        done = [replace(s, begin=s.begin - start, end=s.end - start) for s in spans(simulator.trace_events())]
        return RunStats(counters=counters, spans=tuple(done))

    def read_register(self, offset: int) -> int:
        """The register at ``offset``."""
        return self._simulator.read_register(offset)

    def write_register(self, offset: int, value: int) -> None:
        """Write the register at ``offset``."""
        self._simulator.write_register(offset, value)

    def wait_interrupt(self) -> None:
        """Run the clock until the interrupt."""
        if not self._simulator.run_until_interrupt(self._limit):
            raise DeviceError(f"machine '{self.config.name}' did not finish in {self._limit} cycles; record its waves")
        self._interrupt = self._simulator.cycle
