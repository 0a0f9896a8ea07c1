"""A program ready to run: commands, DDR contents, windows, and what may change."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.config import NpuConfig

__all__ = ["Access", "Case", "Output"]


@dataclass(frozen=True)
class Access:
    """An address window of the host: first page and first page beyond, of 4 KiB."""

    base: int
    limit: int
    read: bool
    write: bool


@dataclass(frozen=True)
class Output:
    """DDR addresses first .. end - 1, written by a command (its index) of a layer."""

    first: int
    end: int
    command: int
    layer: int


@dataclass(frozen=True)
class Case:
    """A command image in its DDR image.

    `ddr` is all of memory, [ddr_base, ddr_base + len(ddr)), commands included; the ring of 2**ring_log2 commands is at
    `ring_base`. `outputs` are the address ranges the program writes; no other byte may change.
    """

    config: NpuConfig
    seed: int
    ddr_base: int
    ddr: npt.NDArray[np.uint8]
    ring_base: int
    ring_log2: int
    commands: int
    end_value: int
    windows: tuple[Access, ...]
    outputs: tuple[Output, ...]
    description: tuple[str, ...]

    @property
    def image(self) -> bytes:
        """The commands."""
        first = self.ring_base - self.ddr_base
        return self.ddr[first : first + 128 * self.commands].tobytes()

    def written(self) -> npt.NDArray[np.bool_]:
        """True for every DDR byte in `outputs`."""
        mask = np.zeros(self.ddr.size, bool)
        for output in self.outputs:
            mask[output.first - self.ddr_base : output.end - self.ddr_base] = True
        return mask
