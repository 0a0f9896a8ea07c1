"""A small machine with the ports of the real one: copies a burst from one address to another, rightly or wrongly."""

from enum import IntEnum

from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.control.axil import AxiLite
from headrace.memory.axi import AxiMaster

SOURCE, TARGET, START, STATUS, FAULT, UNMAPPED = 0x0, 0x4, 0x8, 0xC, 0x10, 0x14


class Fault(IntEnum):
    """What the copier does wrong; the value of its register FAULT."""

    NONE = 0
    LAST_EARLY = 1
    UNSTABLE = 2
    BURST_TYPE = 3
    STROBE = 4
    ASSERTION = 5


class Registers(wiring.Component):
    """AXI4-Lite slave: source, target, beats (writing starts) and a status that a read of it clears."""

    def __init__(self) -> None:
        super().__init__(
            {
                "axil": In(AxiLite()),
                "source": Out(32),
                "target": Out(32),
                "beats": Out(9),
                "start": Out(1),
                "fault": Out(3),
                "status": In(32),
                "status_read": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.axil
        write = bus.awvalid & bus.wvalid & ~bus.bvalid
        m.d.comb += [bus.awready.eq(write), bus.wready.eq(write), bus.arready.eq(~bus.rvalid)]
        m.d.sync += self.start.eq(0)
        with m.If(write):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(0)]
            with m.Switch(bus.awaddr):
                with m.Case(SOURCE):
                    m.d.sync += self.source.eq(bus.wdata)
                with m.Case(TARGET):
                    m.d.sync += self.target.eq(bus.wdata)
                with m.Case(START):
                    m.d.sync += [self.beats.eq(bus.wdata), self.start.eq(1)]
                with m.Case(FAULT):
                    m.d.sync += self.fault.eq(bus.wdata)
                with m.Default():
                    m.d.sync += bus.bresp.eq(2)
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.arvalid & ~bus.rvalid):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(self.status), bus.rresp.eq(0)]
            m.d.comb += self.status_read.eq(bus.araddr == STATUS)
            with m.If(bus.araddr != STATUS):
                m.d.sync += bus.rresp.eq(2)
        with m.Elif(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        return m


class Copier(wiring.Component):
    """Reads a burst into a buffer, writes it, raises `irq`. Status: bits 1..0 read response, 3..2 write response."""

    def __init__(self, *, data_bytes: int) -> None:
        self._bytes = data_bytes
        super().__init__(
            {
                "s_axil": In(AxiLite()),
                "m_axi": Out(AxiMaster(data_bytes=data_bytes)),
                "irq": Out(1),
                "trace_begin": Out(1),
                "trace_end": Out(1),
                "trace_begin_index": Out(16),
                "trace_end_index": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = Registers()
        connect(m, flipped(self.s_axil), registers.axil)
        m.submodules.buffer = memory = Memory(shape=8 * self._bytes, depth=256, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        axi, beat, index, status = self.m_axi, Signal(8), Signal(16), Signal(4)
        last = registers.beats - 1
        size = self._bytes.bit_length() - 1
        fault = registers.fault
        burst = fault != Fault.BURST_TYPE
        m.d.comb += [
            registers.status.eq(status),
            self.trace_begin_index.eq(index),
            self.trace_end_index.eq(index),
            axi.araddr.eq(registers.source),
            axi.awaddr.eq(registers.target),
            axi.arlen.eq(last),
            axi.awlen.eq(last),
            axi.arsize.eq(size),
            axi.awsize.eq(Mux(fault == Fault.STROBE, 0, size)),
            axi.arburst.eq(burst),
            axi.awburst.eq(burst),
            axi.wstrb.eq((1 << self._bytes) - 1),
            write.addr.eq(beat),
            read.addr.eq(beat),
            write.data.eq(axi.rdata),
            axi.wdata.eq(read.data),
            axi.wlast.eq(beat == Mux(fault == Fault.LAST_EARLY, 0, last)),
        ]
        m.d.sync += Assert(~(registers.start & (fault == Fault.ASSERTION)), "asked to fail")
        with m.If(registers.status_read):
            m.d.sync += self.irq.eq(0)
        with m.FSM():
            with m.State("idle"), m.If(registers.start):
                m.d.comb += self.trace_begin.eq(1)
                m.d.sync += status.eq(0)
                m.next = "request"
            with m.State("request"):
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "read"
            with m.State("read"):
                m.d.comb += axi.rready.eq(1)
                with m.If(axi.rvalid):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += [beat.eq(beat + 1), status[:2].eq(status[:2] | axi.rresp)]
                    with m.If(axi.rlast):
                        m.d.sync += beat.eq(0)
                        m.next = "address"
            with m.State("address"):
                m.d.comb += axi.awvalid.eq(1)
                with m.If(axi.awready | (fault == Fault.UNSTABLE)):
                    m.next = "write"
            with m.State("write"):
                m.d.comb += axi.wvalid.eq(1)
                with m.If(axi.wready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(beat == last):
                        m.d.sync += beat.eq(0)
                        m.next = "response"
            with m.State("response"):
                m.d.comb += axi.bready.eq(1)
                with m.If(axi.bvalid):
                    m.d.comb += self.trace_end.eq(1)
                    m.d.sync += [status[2:].eq(axi.bresp), index.eq(index + 1), self.irq.eq(1)]
                    m.next = "idle"
        return m
