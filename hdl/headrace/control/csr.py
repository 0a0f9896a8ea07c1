"""Register bank built from a register description."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.regmap import Access, Reg, RegMap

from .axil import RegisterBus

__all__ = ["CsrBank"]


class CsrBank(wiring.Component):
    """The registers of a `RegMap`.

    Ports are named after the register in lower case and are `reg.width` bits wide, fields at the bits of the
    description:

    - RO: `name` (in), the value read;
    - RW: `name` (out), reset 0; with `hardware` also `name_load` and `name_next` (in), a load that wins over the host;
    - W1: `name` (out), the bits written as 1, for one cycle;
    - W1C: `name` (out); `name_set` (in) sets bits, and wins over a clear in the same cycle.

    Byte strobes are honoured. `write_error` and `read_error` answer addresses which hold no register or are misaligned;
    such writes change nothing. Writes to RO registers are ignored. Registers change in the cycle after the write.
    """

    def __init__(self, *, regs: RegMap) -> None:
        self._regs = regs
        members: dict[str, wiring.Member] = {"bus": In(RegisterBus())}
        for reg in regs:
            members |= _ports(reg)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        data_mask = Cat(bit.replicate(8) for bit in bus.write_strobe)
        m.d.comb += [bus.read_error.eq(1), bus.write_error.eq(1)]
        with m.Switch(bus.read_address):
            for reg in self._regs:
                with m.Case(reg.offset):
                    m.d.comb += [bus.read_error.eq(0), bus.read_data.eq(self._readable(reg))]
        with m.Switch(bus.write_address):
            with m.Case(*(reg.offset for reg in self._regs)):
                m.d.comb += bus.write_error.eq(0)
        for reg in self._regs:
            hit = Signal(name=f"hit_{reg.name.lower()}")
            m.d.comb += hit.eq(bus.write & (bus.write_address == reg.offset))
            self._update(m, reg, hit, data_mask & reg.mask)
        return m

    def _port(self, reg: Reg, suffix: str = "") -> Signal:
        port: Signal = getattr(self, reg.name.lower() + suffix)
        return port

    def _readable(self, reg: Reg) -> Signal | Const:
        return Const(0, 32) if reg.access is Access.W1 else self._port(reg) & reg.mask

    def _update(self, m: Module, reg: Reg, hit: Signal, mask: Signal) -> None:
        data = self.bus.write_data & mask
        if reg.access is Access.RW:
            value = self._port(reg)
            with m.If(hit):
                m.d.sync += value.eq((value & ~mask) | data)
            if reg.hardware:
                with m.If(self._port(reg, "_load")):
                    m.d.sync += value.eq(self._port(reg, "_next"))
        elif reg.access is Access.W1:
            m.d.comb += self._port(reg).eq(Mux(hit, data, 0))
        elif reg.access is Access.W1C:
            value = self._port(reg)
            m.d.sync += value.eq((value & ~Mux(hit, data, 0)) | self._port(reg, "_set"))


def _ports(reg: Reg) -> dict[str, wiring.Member]:
    name, width = reg.name.lower(), reg.width
    if reg.access is Access.RO:
        return {name: In(width)}
    ports = {name: Out(width)}
    if reg.access is Access.W1C:
        ports[f"{name}_set"] = In(width)
    if reg.hardware:
        ports |= {f"{name}_load": In(1), f"{name}_next": In(width)}
    return ports
