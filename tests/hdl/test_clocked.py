"""Registers in emitted Verilog."""

import re

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.clocked import merge_registers
from headrace.verilog import emit


class Registers(wiring.Component):
    """A register with enable, one assigned in parts, one without reset, and combinational logic beside them."""

    def __init__(self):
        super().__init__({"en": In(1), "i": In(8), "o": Out(8), "parts": Out(8), "plain": Out(8), "chosen": Out(8)})

    def elaborate(self, platform):
        m = Module()
        plain = Signal(8, reset_less=True)
        m.d.sync += plain.eq(self.i)
        m.d.comb += [self.plain.eq(plain), self.chosen.eq(self.i)]
        with m.If(self.en):
            m.d.sync += [self.o.eq(self.i), self.parts[4:].eq(self.i)]
            m.d.comb += self.chosen.eq(self.o)
        with m.Else():
            m.d.sync += self.parts[:4].eq(self.o)
        return m


def processes(text):
    """Every clocked process as one line without spaces."""
    found = re.findall(r"always @\(posedge clk\)( begin.*?\n  end$|\n.*?;$)", text, re.M | re.S)
    return ["".join(body.split()) for body in found]


def test_each_register_is_one_clocked_process():
    text = emit(Registers(), "top")
    bodies = processes(text)
    assert len(bodies) == 3
    assert "beginif(en)begino<=i;endif(rst)begino<=8'h00;endend" in bodies
    assert any("parts[7:4]<=i[3:0];" in body and "parts[3:0]<=o[3:0];" in body for body in bodies)
    assert "plain<=i;" in bodies


def test_combinational_processes_stay():
    text = emit(Registers(), "top")
    assert text.count("always @*") == 1
    assert re.search(r"chosen = o;", text)


def test_next_value_with_another_use_stays():
    text = "\n".join(
        [
            "module top(i, clk, o);",
            r"  reg \$1 ;",
            "  always @(posedge clk)",
            r"    q <= \$1 ;",
            "  always @* begin",
            "    if (dummy) begin end",
            r"    \$1  = i;",
            "  end",
            r"  assign o = \$1 ;",
            "endmodule",
            "",
        ]
    )
    assert merge_registers(text) == text


class HalfConstant(wiring.Component):
    """An output of which nothing drives the upper half."""

    def __init__(self):
        super().__init__({"en": In(1), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.comb += self.o[:4].eq(5)
        return m


def test_a_constant_is_there_from_the_start():
    """A process that reads nothing would leave it undefined in simulators that obey the standard."""
    text = emit(HalfConstant(), "top")
    assert "initial o[7:4] = 4'h0;" in text
    assert not re.search(r"always @\*\n", text)
