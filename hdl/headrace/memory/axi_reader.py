"""AXI4 read side: shares one port between the command fetch and the LOAD and WEIGHT engines."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS, BurstRead, ErrorLayout
from headrace.isa import Cause

from .axi import CACHE, INCR, AxiRead
from .fifo import StreamFifo
from .windows import PAGE_BITS, WindowCheck, WindowLayout

__all__ = ["AxiReader"]

CLIENTS = ("fetch", "weight", "load")
REQUEST_LATENCY = 2


class AxiReader(wiring.Component):
    """Burst clients to AXI channels AR and R.

    Arbitration: fetch first, weight and load by turns. One request a cycle at most; it reaches AR REQUEST_LATENCY
    cycles later if fewer than `outstanding` bursts are in flight. One ID, so beats return in order of request; they
    reach the client one cycle after the bus. `rready` is always 1.

    errors.<client>: one cycle. WINDOW: request refused by the windows, nothing is sent, no beat will come; address of
    the burst. BUS: with the last beat (`bad`) of a burst with an error response; address of the burst.
    halt: no more requests are accepted or sent and beats are dropped. idle: nothing in flight.
    beat: a data beat arrived (for counters and the watchdog).
    """

    REQUEST_LATENCY = REQUEST_LATENCY

    def __init__(self, *, axi_bytes: int, outstanding: int, windows: int) -> None:
        self._axi_bytes, self._outstanding, self._windows = axi_bytes, outstanding, windows
        client = BurstRead(axi_bytes=axi_bytes)
        super().__init__(
            {
                **{name: In(client) for name in CLIENTS},
                **{f"{name}_error": Out(ErrorLayout) for name in CLIENTS},
                "axi": Out(AxiRead(data_bytes=axi_bytes)),
                "windows": In(data.ArrayLayout(WindowLayout, windows)),
                "halt": In(1),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = data.StructLayout({"address": ADDR_BITS, "beats": 9, "index": 16, "client": 2})
        held = Signal(layout)  # accepted request, not yet on the bus
        full = Signal()
        origin = data.StructLayout({"address": ADDR_BITS, "index": 16, "client": 2})
        m.submodules.flight = flight = StreamFifo(shape=origin, depth=self._outstanding)
        m.submodules.check = check = WindowCheck(windows=self._windows)
        send = Signal()
        refuse = Signal()
        take = Signal()
        m.d.comb += [
            check.windows.eq(self.windows),
            check.page.eq(held.address[PAGE_BITS:]),
            refuse.eq(full & ~check.allowed & ~self.halt),
            send.eq(full & check.allowed & ~self.halt & flight.i.ready & (~self.axi.arvalid | self.axi.arready)),
            take.eq((~full | send | refuse) & ~self.halt),
            flight.i.valid.eq(send),
            Cat(flight.i.p.address, flight.i.p.index, flight.i.p.client).eq(Cat(held.address, held.index, held.client)),
            self.idle.eq(~full & ~self.axi.arvalid & (flight.level == 0)),
        ]
        with m.If(send | refuse | self.halt):
            m.d.sync += full.eq(0)
        self._arbitrate(m, take, held, full)
        self._address_channel(m, send, held)
        self._data_channel(m, flight)
        bad = self._bus_error(m, flight)
        for number, name in enumerate(CLIENTS):
            error = getattr(self, f"{name}_error")
            bus = bad & (flight.o.p.client == number)
            m.d.sync += [
                error.valid.eq(bus | (refuse & (held.client == number))),
                error.cause.eq(Mux(bus, Cause.BUS, Cause.WINDOW)),
                error.index.eq(Mux(bus, flight.o.p.index, held.index)),
                error.address.eq(Mux(bus, flight.o.p.address, held.address)),
            ]
        return m

    def _arbitrate(self, m: Module, take: Signal, held: Any, full: Signal) -> None:
        load_turn = Signal()
        load_goes = ~self.weight.req.valid | load_turn
        grants = {
            "fetch": self.fetch.req.valid,
            "weight": self.weight.req.valid & ~self.fetch.req.valid & ~(self.load.req.valid & load_turn),
            "load": self.load.req.valid & ~self.fetch.req.valid & load_goes,
        }
        for number, (name, grant) in enumerate(grants.items()):
            request = getattr(self, name).req
            m.d.comb += request.ready.eq(take & grant)
            with m.If(request.ready):
                m.d.sync += [
                    full.eq(1),
                    held.address.eq(request.p.address),
                    held.beats.eq(request.p.beats),
                    held.index.eq(request.p.index),
                    held.client.eq(number),
                ]
                if name != "fetch":
                    m.d.sync += load_turn.eq(name == "weight")

    def _address_channel(self, m: Module, send: Signal, held: Any) -> None:
        m.d.comb += [
            self.axi.arsize.eq((self._axi_bytes - 1).bit_length()),
            self.axi.arburst.eq(INCR),
            self.axi.arcache.eq(CACHE),
            self.axi.rready.eq(1),
        ]
        with m.If(self.axi.arready):
            m.d.sync += self.axi.arvalid.eq(0)
        with m.If(send):
            m.d.sync += [
                self.axi.arvalid.eq(1),
                self.axi.araddr.eq(held.address),
                self.axi.arlen.eq(held.beats - 1),
            ]

    def _data_channel(self, m: Module, flight: StreamFifo) -> None:
        m.d.comb += [self.beat.eq(self.axi.rvalid), flight.o.ready.eq(self.axi.rvalid & self.axi.rlast)]
        beat = Signal(8 * self._axi_bytes)
        last = Signal()
        m.d.sync += [beat.eq(self.axi.rdata), last.eq(self.axi.rlast)]
        for number, name in enumerate(CLIENTS):
            client = getattr(self, name)
            m.d.sync += client.beat_valid.eq(self.axi.rvalid & ~self.halt & (flight.o.p.client == number))
            m.d.comb += [client.beat_data.eq(beat), client.beat_last.eq(last)]

    def _bus_error(self, m: Module, flight: StreamFifo) -> Signal:
        """1 in the cycle in which the last beat of a burst with an error response is on the bus."""
        seen = Signal()
        bad = Signal()
        m.d.comb += bad.eq(self.axi.rvalid & self.axi.rlast & (seen | self.axi.rresp[1]))
        with m.If(self.axi.rvalid):
            m.d.sync += seen.eq((seen | self.axi.rresp[1]) & ~self.axi.rlast)
        marked = Signal()
        m.d.sync += marked.eq(bad)
        for name in CLIENTS:
            m.d.comb += getattr(self, name).bad.eq(marked & getattr(self, name).beat_valid)
        return bad
