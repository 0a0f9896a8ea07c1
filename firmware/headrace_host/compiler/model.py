"""The result of compilation: what to put into DDR, what to run, and what each layer costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace_host.compiler.packing import pack_nibbles, unpack_nibbles
from headrace_host.errors import CompileError
from headrace_host.models.graph import DTYPES

Codes = NDArray[np.int8 | np.uint8]
"""The value of a network input or output."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """A network input or output in DDR: NHWC, each pixel padded with zeros to ``pixel_bytes``.

    Values are int8 or uint8 arrays as ``dtype`` says; those of ``dtype`` int4 are int8 arrays and lie two a byte.
    """

    name: str
    address: int
    shape: tuple[int, ...]
    pixel_bytes: int
    dtype: str = "int8"

    @property
    def size(self) -> int:
        """Bytes in DDR."""
        return int(np.prod(self.shape[:-1])) * self.pixel_bytes

    def to_bytes(self, value: Codes) -> bytes:
        """``value`` as it lies in DDR; raise `CompileError` when it is another tensor than the network takes."""
        if value.shape != self.shape or value.dtype != DTYPES[self.dtype]:
            needed = f"{DTYPES[self.dtype]}{self.shape}"
            raise CompileError(f"tensor '{self.name}' is {value.dtype}{value.shape}, {needed} is needed")
        packed = pack_nibbles(value.view(np.int8)) if self.dtype == "int4" else value.view(np.uint8)
        pixels = np.zeros((*self.shape[:-1], self.pixel_bytes), np.uint8)
        pixels[..., : packed.shape[-1]] = packed
        return pixels.tobytes()

    def from_bytes(self, content: bytes) -> Codes:
        """Inverse of `to_bytes`."""
        pixels = np.frombuffer(content, np.int8).reshape(*self.shape[:-1], self.pixel_bytes)
        if self.dtype == "int4":
            pixels = unpack_nibbles(pixels)
        values = pixels[..., : self.shape[-1]]
        return values.view(np.uint8) if self.dtype == "uint8" else values


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the network as it runs. ``commands`` are indices in the ring; bytes are those moved over AXI."""

    name: str
    operator: str
    precision: str
    macs: int
    runs_on: str
    reason: str
    commands: tuple[int, ...] = ()
    read_bytes: int = 0
    write_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Window:
    """DDR bytes ``[start, end)``, whole pages, that the machine may read or write."""

    start: int
    end: int
    read: bool
    write: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledModel:
    """A command image with its data.

    ``ring`` holds 2**ring_log2 commands from ``ring_address`` on, of which ``count`` are to be executed. ``segments``
    are constants (address, content). ``ddr_end`` is the first byte beyond everything.
    """

    name: str
    config: NpuConfig
    ring: bytes
    ring_address: int
    ring_log2: int
    count: int
    segments: tuple[tuple[int, bytes], ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    layers: tuple[Layer, ...]
    windows: tuple[Window, ...]
    ddr_base: int
    ddr_end: int
    end_value: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)
