"""The only file that knows cocotbext-axi: DDR behind the AXI4 master, a host on the AXI4-Lite slave."""

import itertools
import logging
import random
import warnings
from collections.abc import Iterator
from typing import Any

from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

warnings.filterwarnings("ignore", category=DeprecationWarning, module="cocotbext")  # written for an older cocotb

__all__ = ["Ddr", "Host", "stalls"]


def stalls(rng: random.Random, probability: float) -> Iterator[bool]:
    """Endless random pauses; bursts of them too, so that buffers run full and empty."""
    while True:
        p = rng.choice([0.0, probability, min(0.95, 2 * probability)])
        for _ in range(rng.randint(1, 200)):
            yield rng.random() < p


class Ddr:
    """`size` bytes of memory at address `base` on the AXI4 port `m_axi` of a machine."""

    def __init__(self, dut: Any, *, base: int, size: int) -> None:
        _quiet(dut, "m_axi")
        self._base = base
        self._ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=base + size)

    def write(self, address: int, values: bytes) -> None:
        """Set bytes, by the back door."""
        self._ram.write(address, values)

    def read(self, address: int, size: int) -> bytes:
        """Bytes as they are now."""
        return bytes(self._ram.read(address, size))

    def stall(self, rng: random.Random, probability: float) -> None:
        """Random back-pressure on every channel from now on; 0 removes it."""
        read, write = self._ram.read_if, self._ram.write_if
        for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel):
            channel.set_pause_generator(stalls(rng, probability) if probability else itertools.repeat(False))


class Host:
    """Registers over the AXI4-Lite port `s_axil` of a machine."""

    def __init__(self, dut: Any) -> None:
        _quiet(dut, "s_axil")
        self._master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)

    async def write(self, offset: int, value: int) -> None:
        """Write a 32-bit register; an error response is an AssertionError."""
        response = await self._master.write(offset, value.to_bytes(4, "little"))
        assert response.resp == 0, f"register {offset:#x} refused a write"

    async def read(self, offset: int) -> int:
        """Read a 32-bit register; an error response is an AssertionError."""
        response = await self._master.read(offset, 4)
        assert response.resp == 0, f"register {offset:#x} refused a read"
        return int.from_bytes(response.data, "little")

    async def refused(self, offset: int) -> bool:
        """Whether reading the register gets an error response."""
        response = await self._master.read(offset, 4)
        return bool(response.resp)

    def stall(self, rng: random.Random, probability: float) -> None:
        """Random pauses of the host on every channel from now on."""
        read, write = self._master.read_if, self._master.write_if
        for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel):
            channel.set_pause_generator(stalls(rng, probability))


def _quiet(dut: Any, prefix: str) -> None:
    logging.getLogger(f"cocotb.{dut._name}.{prefix}").setLevel(logging.WARNING)
