"""Address windows: the parts of DDR the host lets the machine touch."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS

__all__ = ["PAGE_BITS", "WindowCheck", "WindowLayout"]

PAGE_BITS = 12

WindowLayout = data.StructLayout({"base": ADDR_BITS - PAGE_BITS, "limit": ADDR_BITS - PAGE_BITS, "read": 1, "write": 1})


class WindowCheck(wiring.Component):
    """Combinational: is page `page` inside a window (base <= page < limit) that allows the access?

    A burst lies within one page, so one page decides. write: 1 asks for a write, 0 for a read.
    """

    def __init__(self, *, windows: int) -> None:
        self._count = windows
        super().__init__(
            {
                "windows": In(data.ArrayLayout(WindowLayout, windows)),
                "page": In(ADDR_BITS - PAGE_BITS),
                "write": In(1),
                "allowed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        hits = []
        for i in range(self._count):
            window = self.windows[i]
            permitted = (self.write & window.write) | (~self.write & window.read)
            hits.append(permitted & (window.base <= self.page) & (self.page < window.limit))
        m.d.comb += self.allowed.eq(Cat(hits).any())
        return m
