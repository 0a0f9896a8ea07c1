"""AXI4-Lite slave: one register access at a time in each direction."""

from amaranth import Elaboratable, Module, Signal
from amaranth.hdl import unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["AXIL_ADDRESS_BITS", "AxiLite", "AxiLiteSlave", "RegisterBus"]

AXIL_ADDRESS_BITS = 12
OKAY, SLVERR = 0, 2


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32-bit data, seen from the master."""

    def __init__(self) -> None:
        super().__init__(
            {
                "awaddr": Out(AXIL_ADDRESS_BITS),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(AXIL_ADDRESS_BITS),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class RegisterBus(wiring.Signature):
    """Slave to register bank.

    `write` lasts one cycle; `write_error`, `read_data` and `read_error` answer in the same cycle. Reading has no side
    effects, so `read_address` is always taken as asked for.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "write": Out(1),
                "write_address": Out(AXIL_ADDRESS_BITS),
                "write_data": Out(32),
                "write_strobe": Out(4),
                "write_error": In(1),
                "read_address": Out(AXIL_ADDRESS_BITS),
                "read_data": In(32),
                "read_error": In(1),
            }
        )


class AxiLiteSlave(wiring.Component):
    """Turns AXI4-Lite accesses into `RegisterBus` accesses.

    Address and data of a write may come in any order. A response follows its request by two cycles; an access the
    bank refuses gets SLVERR (a refused read, data 0). Reads and writes do not wait for each other.
    """

    bus: In(AxiLite())  # type: ignore[valid-type]
    regs: Out(RegisterBus())  # type: ignore[valid-type]

    def elaborate(self, platform: Elaboratable) -> Module:
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _write(self, m: Module) -> None:
        bus, regs = self.bus, self.regs
        have_address, have_data = Signal(), Signal()
        m.d.comb += [bus.awready.eq(~have_address), bus.wready.eq(~have_data)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [have_address.eq(1), regs.write_address.eq(bus.awaddr)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [have_data.eq(1), regs.write_data.eq(bus.wdata), regs.write_strobe.eq(bus.wstrb)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        m.d.comb += regs.write.eq(have_address & have_data & (~bus.bvalid | bus.bready))
        with m.If(regs.write):
            response = Signal(unsigned(2))
            m.d.comb += response.eq(OKAY)
            with m.If(regs.write_error):
                m.d.comb += response.eq(SLVERR)
            m.d.sync += [have_address.eq(0), have_data.eq(0), bus.bvalid.eq(1), bus.bresp.eq(response)]

    def _read(self, m: Module) -> None:
        bus, regs = self.bus, self.regs
        have_address = Signal()
        m.d.comb += bus.arready.eq(~have_address)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [have_address.eq(1), regs.read_address.eq(bus.araddr)]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(have_address & (~bus.rvalid | bus.rready)):
            m.d.sync += [have_address.eq(0), bus.rvalid.eq(1), bus.rdata.eq(regs.read_data), bus.rresp.eq(OKAY)]
            with m.If(regs.read_error):
                m.d.sync += [bus.rdata.eq(0), bus.rresp.eq(SLVERR)]
