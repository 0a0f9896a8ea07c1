"""Command fetch: the command ring in DDR, read ahead of execution."""

from amaranth import Cat, Module, Signal
from amaranth.hdl import unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import ADDR_BITS, BurstRead
from headrace.isa import COMMAND_BITS, COMMAND_BYTES

__all__ = ["Fetch", "FetchedLayout"]

FetchedLayout = data.StructLayout({"index": 16, "cmd": COMMAND_BITS})


class Fetch(wiring.Component):
    """Reads commands [head, tail) of the ring, in order.

    Commands are requested while `run` is set, up to `prefetch` ahead of the one handed out, in bursts of at most
    `burst_beats` beats; a command is aligned to its size, so no burst crosses 4 KiB. `base` and `size` (log2 of the
    ring's commands) are constant while commands are outstanding. `head` counts the commands handed out. After a burst
    with a bus error
    nothing more is handed out, until reset: the reader reports the error.
    """

    def __init__(self, *, axi_bytes: int, burst_beats: int, prefetch: int = 4) -> None:
        self._axi_bytes, self._prefetch = axi_bytes, prefetch
        self._command_beats = COMMAND_BYTES // axi_bytes
        self._burst = min(self._command_beats, burst_beats)
        super().__init__(
            {
                "run": In(1),
                "base": In(ADDR_BITS),
                "size": In(4),
                "tail": In(16),
                "head": Out(16),
                "bus": Out(BurstRead(axi_bytes=axi_bytes)),
                "o": Out(stream.Signature(FetchedLayout)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beats = fifo.SyncFIFOBuffered(width=self._axi_bytes * 8, depth=self._prefetch * self._command_beats)
        m.submodules.beats = beats
        bad = Signal()
        with m.If(self.bus.beat_valid & self.bus.beat_last & self.bus.bad):
            m.d.sync += bad.eq(1)
        m.d.comb += [beats.w_data.eq(self.bus.beat_data), beats.w_en.eq(self.bus.beat_valid)]
        self._request(m)
        self._collect(m, beats, bad)
        return m

    def _request(self, m: Module) -> None:
        """One burst at a time, as long as a whole command finds room among those not yet handed out."""
        req = self.bus.req
        bursts = self._command_beats // self._burst
        asked = Signal(16)  # commands requested completely
        part = Signal(index_bits(bursts))
        ahead = Signal(16)
        slot = Signal(16)
        m.d.comb += [
            ahead.eq(asked - self.head),
            slot.eq(asked & ((1 << self.size) - 1)),
        ]
        with m.If(req.ready):
            m.d.sync += req.valid.eq(0)
        with m.If(self.run & (asked != self.tail) & (ahead < self._prefetch) & (~req.valid | req.ready)):
            m.d.sync += [
                req.valid.eq(1),
                req.payload.address.eq(self.base + slot * COMMAND_BYTES + part * (self._burst * self._axi_bytes)),
                req.payload.beats.eq(self._burst),
                req.payload.index.eq(asked),
                part.eq(part + 1),
            ]
            with m.If(part == bursts - 1):
                m.d.sync += [part.eq(0), asked.eq(asked + 1)]

    def _collect(self, m: Module, beats: fifo.SyncFIFOBuffered, bad: Signal) -> None:
        """Shift beats into the command handed out."""
        width = self._axi_bytes * 8
        count = Signal(range(self._command_beats + 1))
        command = Signal(unsigned(COMMAND_BITS))
        complete = Signal()
        m.d.comb += [
            complete.eq(count == self._command_beats),
            self.o.valid.eq(complete & ~bad),
            self.o.payload.cmd.eq(command),
            self.o.payload.index.eq(self.head),
            beats.r_en.eq(~complete),
        ]
        with m.If(beats.r_rdy & beats.r_en):
            m.d.sync += [command.eq(Cat(command[width:], beats.r_data)), count.eq(count + 1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [count.eq(0), self.head.eq(self.head + 1)]
