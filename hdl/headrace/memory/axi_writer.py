"""AXI4 write side: sends the STORE engine's bursts once it holds all of their data."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS, BurstWrite, ErrorLayout
from headrace.isa import Cause

from .axi import CACHE, INCR, AxiWrite
from .fifo import StreamFifo
from .windows import PAGE_BITS, WindowCheck, WindowLayout

__all__ = ["AxiWriter"]


class AxiWriter(wiring.Component):
    """One burst client to AXI channels AW, W and B.

    AW and W of a burst start, independently of each other, when all of its beats are in the data queue (2 bursts long).
    Up to `outstanding` bursts wait for responses, one ID, `bready` always 1; `store.done` comes with each response.

    store_error: one cycle. WINDOW: request refused by the windows, nothing is sent. BUS: error response. Address of the
    burst.
    halt: no more requests are accepted or sent. Bursts already sent to AW are completed from the data held. idle: no
    burst is on the bus; the data queue may hold beats of requests refused, so reset the writer with its engine.
    beat: a beat was transferred.
    """

    def __init__(self, *, axi_bytes: int, burst_beats: int, outstanding: int, windows: int) -> None:
        self._axi_bytes, self._burst_beats = axi_bytes, burst_beats
        self._outstanding, self._windows = outstanding, windows
        super().__init__(
            {
                "store": In(BurstWrite(axi_bytes=axi_bytes)),
                "store_error": Out(ErrorLayout),
                "axi": Out(AxiWrite(data_bytes=axi_bytes)),
                "windows": In(data.ArrayLayout(WindowLayout, windows)),
                "halt": In(1),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.store.req
        held = Signal(request.payload.shape())  # accepted request, not yet on the bus
        full = Signal()
        origin = data.StructLayout({"address": ADDR_BITS, "index": 16})
        m.submodules.flight = flight = StreamFifo(shape=origin, depth=self._outstanding)
        m.submodules.sizes = sizes = StreamFifo(shape=9, depth=self._outstanding)
        m.submodules.check = check = WindowCheck(windows=self._windows)
        allowed = Signal()
        checked = Signal()  # `allowed` belongs to `held`
        stored = Signal(range(2 * self._burst_beats + 2))  # beats received and not promised to a burst
        send = Signal()
        refuse = Signal()
        free = Signal()
        m.d.comb += [
            check.windows.eq(self.windows),
            check.page.eq(held.address[PAGE_BITS:]),
            check.write.eq(1),
            refuse.eq(checked & ~allowed & ~self.halt),
            free.eq(flight.i.ready & sizes.i.ready & (~self.axi.awvalid | self.axi.awready)),
            send.eq(checked & allowed & ~self.halt & (stored >= held.beats) & free),
            request.ready.eq((~full | send | refuse) & ~self.halt),
            *(flight.i.valid.eq(send), sizes.i.valid.eq(send), sizes.i.payload.eq(held.beats)),
            Cat(flight.i.p.address, flight.i.p.index).eq(Cat(held.address, held.index)),
            self.idle.eq(~full & ~self.axi.awvalid & (flight.level == 0)),
        ]
        m.d.sync += [allowed.eq(check.allowed), checked.eq(full & ~send & ~refuse & ~self.halt)]
        with m.If(send | refuse | self.halt):
            m.d.sync += full.eq(0)
        with m.If(request.valid & request.ready):
            m.d.sync += [held.eq(request.payload), full.eq(1)]
        with m.If(self.axi.awready):
            m.d.sync += self.axi.awvalid.eq(0)
        with m.If(send):
            m.d.sync += [self.axi.awvalid.eq(1), self.axi.awaddr.eq(held.address), self.axi.awlen.eq(held.beats - 1)]
        received = self.store.data.valid & self.store.data.ready
        m.d.sync += stored.eq(stored + received - Mux(send, held.beats, 0))
        m.d.comb += [
            self.axi.awsize.eq((self._axi_bytes - 1).bit_length()),
            self.axi.awburst.eq(INCR),
            self.axi.awcache.eq(CACHE),
        ]
        self._data_channel(m, sizes)
        self._responses(m, flight, refuse, held)
        return m

    def _data_channel(self, m: Module, sizes: StreamFifo) -> None:
        """Beats of the bursts in `sizes`, in order; a size leaves with its last beat."""
        shape = self.store.data.payload.shape()
        m.submodules.beats = beats = StreamFifo(shape=shape, depth=2 * self._burst_beats, buffered=True)
        number = Signal(9)
        last = Signal()
        move = Signal()
        m.d.comb += [
            beats.i.valid.eq(self.store.data.valid),
            beats.i.payload.eq(self.store.data.payload),
            self.store.data.ready.eq(beats.i.ready),
            last.eq(number == sizes.o.payload - 1),
            move.eq(beats.o.valid & sizes.o.valid & (~self.axi.wvalid | self.axi.wready)),
            beats.o.ready.eq(move),
            sizes.o.ready.eq(move & last),
            self.beat.eq(self.axi.wvalid & self.axi.wready),
        ]
        with m.If(self.axi.wready):
            m.d.sync += self.axi.wvalid.eq(0)
        with m.If(move):
            m.d.sync += [
                number.eq(Mux(last, 0, number + 1)),
                self.axi.wvalid.eq(1),
                self.axi.wdata.eq(beats.o.p.data),
                self.axi.wstrb.eq(beats.o.p.strb),
                self.axi.wlast.eq(last),
            ]

    def _responses(self, m: Module, flight: StreamFifo, refuse: Signal, held: Signal) -> None:
        bad = Signal()
        m.d.comb += [
            self.axi.bready.eq(1),
            flight.o.ready.eq(self.axi.bvalid),
            self.store.done.eq(self.axi.bvalid),
            bad.eq(self.axi.bvalid & self.axi.bresp[1]),
        ]
        m.d.sync += [
            self.store_error.valid.eq(bad | refuse),
            self.store_error.cause.eq(Mux(bad, Cause.BUS, Cause.WINDOW)),
            self.store_error.index.eq(Mux(bad, flight.o.p.index, held.index)),
            self.store_error.address.eq(Mux(bad, flight.o.p.address, held.address)),
        ]
