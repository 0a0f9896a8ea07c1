"""Event counters."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["COUNTER_BITS", "Counters"]

COUNTER_BITS = 64


class Counters(wiring.Component):
    """Counters of cycles in which an event bit is set.

    `snapshot` copies all of them into `values` in one cycle; the events of that cycle are not included. `clear` sets
    the running counts to zero (with `snapshot` in the same cycle: after the copy) and leaves `values` alone.
    """

    def __init__(self, *, count: int) -> None:
        self._count = count
        super().__init__(
            {
                "events": In(count),
                "snapshot": In(1),
                "clear": In(1),
                "values": Out(data.ArrayLayout(COUNTER_BITS, count)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for i in range(self._count):
            running = Signal(COUNTER_BITS, name=f"running_{i}")
            m.d.sync += running.eq(running + self.events[i])
            with m.If(self.snapshot):
                m.d.sync += self.values[i].eq(running)
            with m.If(self.clear):
                m.d.sync += running.eq(0)
        return m
