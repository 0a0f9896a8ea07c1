"""Tensors of a layer in the scratchpad, from their first write to their last read."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config import NpuConfig
from headrace.isa import DType
from headrace_host.allocate import Region, ScratchpadAllocator
from headrace_host.compiler.layout import ELEMENT_BYTES, View, make_view, tensor_words
from headrace_host.errors import CompileError

OPERANDS, VECTORS = 0, 1
"""Sub-bank that the MAC array reads, and the one of everything else."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """``pixels`` rows of ``channels`` elements of ``kind`` in ``region``."""

    name: str
    view: View
    kind: DType
    region: Region

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return ELEMENT_BYTES[self.kind]


class Arena:
    """Allocates tensors; a command that reuses the room of a freed one waits for its last reader."""

    def __init__(self, config: NpuConfig, allocator: ScratchpadAllocator) -> None:
        self._config, self._allocator = config, allocator

    def new(self, name: str, pixels: int, channels: int, kind: DType, *, bank: int, high: bool = False) -> Tensor:
        """A tensor in sub-bank ``bank`` if it has room, else in the other; ``high``: at the end of what is free.

        Raises:
            CompileError: when neither has.
        """
        width = channels * ELEMENT_BYTES[kind]
        words = tensor_words(self._config, pixels, width, 0)
        region = self._allocator.allocate(words, prefer=bank, high=high)
        if region is None:
            raise CompileError(
                f"machine '{self._config.name}': the scratchpad has no room for '{name}', {pixels} rows of {width} "
                "bytes; take fewer tokens at once"
            )
        return Tensor(name, make_view(self._config, region.start, pixels, width, 0), kind, region)

    def record(self, name: str, rows: int) -> Tensor:
        """One fp32 value a row, in L equal lanes."""
        return self.new(name, rows, self._config.vector_lanes, DType.B32, bank=VECTORS, high=True)

    def free(self, *tensors: Tensor) -> None:
        """Give the room of ``tensors`` back."""
        for tensor in tensors:
            self._allocator.release(tensor.region)
