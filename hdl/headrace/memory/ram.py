"""One synchronous memory with a read port and a write port, from which every large memory of the machine is built."""

from collections.abc import Hashable

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits

__all__ = ["RamBank"]


class RamBank(wiring.Component):
    """Cell: `depth` words of `width` bits, one read and one write a cycle.

    r_data holds the word read LATENCY cycles after `r_en`, until the next read arrives. Bit i of `w_mask` writes bits
    i*granule .. (i+1)*granule-1. A read and a write of one word in one cycle: the read returns the old data.
    """

    LATENCY = 2

    def __init__(self, *, depth: int, width: int, granule: int) -> None:
        if depth < 1 or granule < 1 or width % granule:
            raise ValueError(f"depth {depth}, width {width} and granule {granule} do not make a memory")
        self._depth, self._width, self._granule = depth, width, granule
        super().__init__(
            {
                "r_en": In(1),
                "r_addr": In(index_bits(depth)),
                "r_data": Out(width),
                "w_mask": In(width // granule),
                "w_addr": In(index_bits(depth)),
                "w_data": In(width),
            }
        )

    @property
    def cell_key(self) -> Hashable:
        return self._depth, self._width, self._granule

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self._width, depth=self._depth, init=[])
        read = memory.read_port(domain="sync")
        write = memory.write_port(domain="sync", granularity=self._granule)
        loaded = Signal()
        m.d.comb += [
            read.en.eq(self.r_en),
            read.addr.eq(self.r_addr),
            write.en.eq(self.w_mask),
            write.addr.eq(self.w_addr),
            write.data.eq(self.w_data),
        ]
        m.d.sync += loaded.eq(self.r_en)
        with m.If(loaded):
            m.d.sync += self.r_data.eq(read.data)
        return m
