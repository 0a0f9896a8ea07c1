"""WEIGHT engine: streams weight entries from DDR into the ring, as far ahead as the ring has room."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS, BurstRead, EnginePort, RingWrite
from headrace.isa import Cause
from headrace.isa.commands import WEIGHT

from .fifo import StreamFifo

__all__ = ["WeightEngine"]

BEATS_BITS = 40  # beats of a command: 2^24 entries of at most 2^16 beats


class WeightEngine(wiring.Component):
    """Executes WEIGHT commands; one beat a cycle as long as the ring has free entries and `outstanding` bursts suffice.

    Entries are reserved in the ring before their bursts are requested, at most `ahead` beats before. A burst is shorter
    than it could be only if the ring is full: then what is reserved is requested, since the MAC array may need these
    entries before it releases any. Runs of entries (`outer`) follow each other without a gap. The next command is
    accepted when all bursts of the previous one are requested.
    An entry takes `entry_beats` beats, with `scales` another `scale_beats`.
    Error ALIGN: `ddr` or `step` is not aligned to a beat.
    """

    def __init__(
        self,
        *,
        axi_bytes: int,
        burst_beats: int,
        outstanding: int,
        entries: int,
        entry_beats: int,
        scale_beats: int,
    ) -> None:
        self._axi_bytes, self._burst_beats, self._outstanding = axi_bytes, burst_beats, outstanding
        self._entry_beats, self._scaled_beats = entry_beats, entry_beats + scale_beats
        self._ahead = 2 * burst_beats
        super().__init__(
            {
                "port": In(EnginePort(WEIGHT)),
                "bus": Out(BurstRead(axi_bytes=axi_bytes)),
                "ring": Out(RingWrite(axi_bytes=axi_bytes, entries=entries)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        issued = self.port.issue.payload
        command = issued.cmd
        running = Signal()
        index = Signal(16)
        tag = Signal(8)
        scales = Signal()
        start = Signal(ADDR_BITS)
        address = Signal(ADDR_BITS)
        run, step = Signal(ADDR_BITS), Signal(signed(32))  # where this run starts; from run to run
        all_runs, runs = Signal(16), Signal(16)  # of one repetition; left in it, this one included
        all_beats = Signal(BEATS_BITS)  # of one run
        beats = Signal(BEATS_BITS)  # left in this run
        repeats = Signal(16)  # left, this one included
        misaligned = Signal()

        low = (self._axi_bytes - 1).bit_length()
        m.d.comb += misaligned.eq(Cat(command.ddr[:low], command.step[:low]) != 0)
        following = Signal(ADDR_BITS)
        m.d.comb += following.eq(Mux(runs == 1, start, run + step))
        request = self.bus.req
        flag = data.StructLayout({"tag": 8, "scales": 1, "last": 1})
        m.submodules.flight = flight = StreamFifo(shape=flag, depth=self._outstanding)
        size, emit = self._credit(m, running, address, beats, scales)
        m.d.comb += [
            self.port.issue.ready.eq(~running & ~self.port.error.valid),
            flight.i.valid.eq(emit),
            *(flight.i.p.tag.eq(tag), flight.i.p.scales.eq(scales)),
            flight.i.p.last.eq((size == beats) & (runs == 1) & (repeats == 1)),
            emit.eq((size != 0) & (~request.valid | request.ready) & flight.i.ready),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(emit):
            m.d.sync += [
                request.valid.eq(1),
                request.p.address.eq(address),
                request.p.beats.eq(size),
                request.p.index.eq(index),
                address.eq(address + size * self._axi_bytes),
                beats.eq(beats - size),
            ]
            with m.If(size == beats):
                m.d.sync += [address.eq(following), run.eq(following), beats.eq(all_beats), runs.eq(runs - 1)]
                with m.If(runs == 1):
                    m.d.sync += [runs.eq(all_runs), repeats.eq(repeats - 1), running.eq(repeats != 1)]
        with m.If(self.port.issue.valid & self.port.issue.ready):
            total = Mux(command.scales, command.entries * self._scaled_beats, command.entries * self._entry_beats)
            m.d.sync += [
                *(running.eq(~misaligned), index.eq(issued.index), repeats.eq(command.repeat)),
                *(tag.eq(command.tag), scales.eq(command.scales)),
                *(start.eq(command.ddr), run.eq(command.ddr), address.eq(command.ddr), step.eq(command.step)),
                *(beats.eq(total), all_beats.eq(total), runs.eq(command.outer), all_runs.eq(command.outer)),
                self.port.error.valid.eq(misaligned),
                self.port.error.cause.eq(Cause.ALIGN),
                self.port.error.index.eq(issued.index),
                self.port.error.address.eq(command.ddr),
            ]
        self._fill_ring(m, flight)
        m.d.comb += self.port.busy.eq(running | request.valid | (flight.level != 0) | self.port.done)
        return m

    def _credit(
        self, m: Module, running: Signal, address: Signal, beats: Signal, scales: Signal
    ) -> tuple[Signal, Signal]:
        """Reserves entries; returns beats of the next burst (0: not yet), and the flag the caller sets to send it."""
        credit = Signal(range(self._ahead + self._scaled_beats + 1))
        reserve = Signal()
        legal = Signal(range(self._burst_beats + 1))  # beats up to the end of the segment or the burst boundary
        room = Signal(range(self._burst_beats + 1))
        size = Signal(range(self._burst_beats + 1))
        emit = Signal()
        beat_bits = (self._axi_bytes - 1).bit_length()
        burst_bits = (self._burst_beats - 1).bit_length()
        m.d.comb += [
            room.eq(self._burst_beats - address[beat_bits:][:burst_bits]),
            legal.eq(Mux(beats < room, beats, room)),
            reserve.eq(running & (self.ring.free != 0) & (credit < self._ahead) & (credit < beats)),
            self.ring.reserve.eq(reserve),
        ]
        with m.If(running & (credit >= legal)):
            m.d.comb += size.eq(legal)
        with m.Elif(running & (self.ring.free == 0)):
            m.d.comb += size.eq(credit)
        entry = Mux(scales, self._scaled_beats, self._entry_beats)
        m.d.sync += credit.eq(credit + Mux(reserve, entry, 0) - Mux(emit, size, 0))
        return size, emit

    def _fill_ring(self, m: Module, flight: StreamFifo) -> None:
        end = self.bus.beat_valid & self.bus.beat_last
        m.d.comb += [
            self.ring.valid.eq(self.bus.beat_valid),
            self.ring.data.eq(self.bus.beat_data),
            *(self.ring.tag.eq(flight.o.p.tag), self.ring.scales.eq(flight.o.p.scales)),
            flight.o.ready.eq(end),
        ]
        m.d.sync += self.port.done.eq(end & flight.o.p.last)
