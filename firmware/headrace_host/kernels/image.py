"""A command image built kernel by kernel: tensors in DDR and scratchpad, commands, ring."""

from __future__ import annotations

from collections.abc import Callable

from headrace.config import NpuConfig
from headrace.isa import COMMAND_BYTES
from headrace_host.allocate import DdrAllocator, ScratchpadAllocator
from headrace_host.compiler.constants import ConstantStore, DdrImage
from headrace_host.compiler.encode import encode_command
from headrace_host.compiler.layout import View, tensor_words
from headrace_host.compiler.model import CompiledModel, Layer, Window
from headrace_host.compiler.network import END_VALUE
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.stream import DDR_GRANULE, Planned, Recorder, TokenAssigner, schedule
from headrace_host.errors import CompileError


class KernelImage:
    """Collects the commands of kernels that are emitted with its ``memory``, ``constants`` and ``image``.

    Every tensor has an address in DDR, in an area of ``area_bytes`` (whole pages) from address 0, and a place in the
    scratchpad; `load` and `store` move it. With ``beside`` the image shares DDR with another: its area, its constants
    by name; one is finished before the next is begun.
    """

    def __init__(self, config: NpuConfig, *, area_bytes: int = 1 << 20, beside: KernelImage | None = None) -> None:
        self.config = config
        self._area: int = area_bytes if beside is None else beside._area
        self._recorder = Recorder()
        self.memory = Memory(config, self._recorder, ScratchpadAllocator(config), 0)
        self.image: DdrImage = DdrImage(DdrAllocator(area_bytes, 1 << 32)) if beside is None else beside.image
        self.constants = ConstantStore(config, self._recorder, self.image)
        self.tensors: DdrAllocator = DdrAllocator(0, area_bytes) if beside is None else beside.tensors
        self._layers: list[str] = []

    def tensor(self, name: str, pixels: int, channel_bytes: int, *, prefer: int) -> Location:
        """A tensor in the scratchpad, in sub-bank ``prefer`` if there is room."""
        location = self.external(name, pixels, channel_bytes)
        self._place(location, prefer)
        return location

    def external(self, name: str, pixels: int, channel_bytes: int) -> Location:
        """A tensor in DDR alone; `Memory.load` and `Memory.store` of ``memory`` move parts of it."""
        return Location(name, pixels, channel_bytes, 0, ddr=self.tensors.allocate(pixels * channel_bytes, name))

    def reserve(self, name: str, pixels: int, channel_bytes: int, *, prefer: int) -> View:
        """Room in the scratchpad for the whole image, in sub-bank ``prefer`` if there is any."""
        return self._place(Location(name, pixels, channel_bytes, 0), prefer)

    def _place(self, location: Location, prefer: int) -> View:
        if not self.memory.place(location, prefer=prefer):
            raise CompileError(f"tensor '{location.name}' does not fit the scratchpad of machine '{self.config.name}'")
        assert location.view is not None
        return location.view

    def most_rows(self, rows: int, buffers: Callable[[int], list[tuple[int, int, int]]]) -> int:
        """``rows``, or its half, quarter, .. that the scratchpad has room for, or 0: ``buffers`` gives for a number of
        rows the buffers (pixels, channel bytes, preferred sub-bank)."""
        while rows:
            words = [(tensor_words(self.config, pixels, size, 0), bank) for pixels, size, bank in buffers(rows)]
            if self.memory.scratchpad.holds(words):
                break
            rows //= 2
        return rows

    def begin(self, name: str) -> int:
        """Start a kernel; return the label of its commands."""
        self.memory.label = len(self._layers)
        self._layers.append(name)
        return self.memory.label

    def load(self, location: Location) -> None:
        """Bring a tensor from DDR."""
        assert location.view is not None
        self.memory.load(location, 0, location.pixels, location.view, 0)

    def store(self, location: Location) -> None:
        """Send a tensor to DDR."""
        assert location.view is not None
        self.memory.store(location, 0, location.pixels, location.view, 0)

    def finish(self, name: str) -> CompiledModel:
        """The image of all commands; it has no bindings, its layers are the kernels."""
        commands = [*schedule(self._recorder.commands), Planned("END", len(self._layers), (), {"value": END_VALUE})]
        values = TokenAssigner(self.config, self._area // DDR_GRANULE).assign(commands)
        ring = b"".join(encode_command(self.config, c.name, v) for c, v in zip(commands, values, strict=True))
        log2 = (len(commands) - 1).bit_length()
        self.image.allocator.align_page()
        address = self.image.allocator.allocate(COMMAND_BYTES << log2, "command ring")
        end = self.image.allocator.align_page()
        return CompiledModel(
            name=name,
            config=self.config,
            ring=ring,
            ring_address=address,
            ring_log2=log2,
            count=len(commands),
            segments=tuple(self.image.segments),
            inputs=(),
            outputs=(),
            layers=tuple(self._layer(label, kernel, commands) for label, kernel in enumerate(self._layers)),
            windows=(
                Window(start=0, end=self._area, read=True, write=True),
                Window(start=self._area, end=end, read=True, write=False),
            ),
            ddr_base=0,
            ddr_end=end,
            end_value=END_VALUE,
        )

    def _layer(self, label: int, kernel: str, commands: list[Planned]) -> Layer:
        indices = tuple(i for i, command in enumerate(commands) if command.label == label)
        return Layer(
            name=kernel, operator=kernel, precision="", macs=0, runs_on="machine", reason="kernel", commands=indices
        )
