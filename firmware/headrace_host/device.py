"""One interface to every machine: put data into DDR, run a command image, read results, counters and errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.config import NpuConfig
from headrace_host.compiler.model import Codes, CompiledModel
from headrace_host.driver import halted
from headrace_host.errors import DeviceError
from headrace_sim.rtl.trace import Span

if TYPE_CHECKING:
    from headrace_sim.golden import GoldenMachine


@dataclass(frozen=True, kw_only=True)
class RunStats:
    """What a run cost; both are empty where time does not exist (golden).

    ``counters`` are the machine's, by name. ``spans`` say when each command was in an engine, in cycles from the start
    of the run.
    """

    counters: dict[str, int] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


class Device(ABC):
    """A machine with its DDR. Addresses are bytes; the model's DDR range must lie inside the device's."""

    def __init__(self, config: NpuConfig) -> None:
        self.config = config

    @abstractmethod
    def write(self, address: int, content: bytes) -> None:
        """Put ``content`` into DDR."""

    @abstractmethod
    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of DDR."""

    @abstractmethod
    def execute(self, model: CompiledModel, scalars: Mapping[int, int] | None = None) -> RunStats:
        """Open the windows, set ``scalars`` (scalar registers by number), ring the doorbell, wait for the interrupt.

        Raises:
            DeviceError: when the machine halts.
        """

    def load(self, model: CompiledModel) -> None:
        """Put constants and commands of ``model`` into DDR."""
        if model.config != self.config:
            raise DeviceError(
                f"'{model.name}' was compiled for machine '{model.config.name}', this is '{self.config.name}'; "
                "compile it for this machine"
            )
        for address, content in model.segments:
            self.write(address, content)
        self.write(model.ring_address, model.ring)

    def infer(self, model: CompiledModel, inputs: dict[str, Codes]) -> tuple[dict[str, Codes], RunStats]:
        """One inference of a loaded model: outputs by tensor name, and what it cost."""
        for binding in model.inputs:
            if binding.name not in inputs:
                raise DeviceError(
                    f"input '{binding.name}' is missing; give an {binding.dtype} array of shape {binding.shape}"
                )
            self.write(binding.address, binding.to_bytes(inputs[binding.name]))
        stats = self.execute(model)
        return {b.name: b.from_bytes(self.read(b.address, b.size)) for b in model.outputs}, stats


class GoldenDevice(Device):
    """The numpy model."""

    def __init__(self, config: NpuConfig, *, ddr_base: int, ddr_bytes: int) -> None:
        from headrace_sim.golden import GoldenMachine

        super().__init__(config)
        self._machine: GoldenMachine = GoldenMachine(config, ddr_base=ddr_base, ddr_bytes=ddr_bytes)

    def write(self, address: int, content: bytes) -> None:
        self._machine.write_ddr(address, content)

    def read(self, address: int, size: int) -> bytes:
        return self._machine.read_ddr(address, size)

    def execute(self, model: CompiledModel, scalars: Mapping[int, int] | None = None) -> RunStats:
        from headrace_sim.golden import Window

        for number, value in (scalars or {}).items():
            self._machine.scalars[number] = value
        self._machine.windows = [Window(w.start >> 12, w.end >> 12, w.read, w.write) for w in model.windows]
        result = self._machine.run(model.ring_address, model.count, ring_size=model.ring_log2)
        if result.error is not None:
            e = result.error
            raise DeviceError(halted(model, e.cause.name, e.index, e.engine.name, e.address))
        if result.end_value != model.end_value:
            raise DeviceError(f"the machine stopped without END ({result.end_value}); the command image is damaged")
        return RunStats()


def open_device(backend: str, model: CompiledModel, *, waves: Path | None = None) -> Device:
    """A device of kind ``backend`` (golden or rtl) with DDR for ``model``, its constants and commands loaded."""
    size = model.ddr_end - model.ddr_base
    if backend == "golden":
        device: Device = GoldenDevice(model.config, ddr_base=model.ddr_base, ddr_bytes=size)
    elif backend == "rtl":
        from headrace_host.rtl import RtlDevice

        device = RtlDevice(model.config, ddr_base=model.ddr_base, ddr_bytes=size, waves=waves)
    else:
        raise DeviceError(f"unknown backend '{backend}'; choose golden or rtl")
    device.load(model)
    return device
