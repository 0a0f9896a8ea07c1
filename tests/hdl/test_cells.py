"""Cells are emitted once and simulate as plain submodules."""

import re

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from headrace.cells import CellLibrary, add_cell
from headrace.verilog import emit


class Increment(wiring.Component):
    """Combinational: it has clock and reset ports as every cell."""

    a: In(8)
    y: Out(8)
    cell_key = ()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.y.eq(self.a + 1)
        return m


class ScaleStage(wiring.Component):
    """A cell in which there is another cell; ports in an array."""

    def __init__(self, *, factor: int) -> None:
        self._factor = factor
        super().__init__({"a": In(8).array(2), "y": Out(8).array(2)})

    @property
    def cell_key(self) -> int:
        return self._factor

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for i in range(2):
            increment = Increment()
            add_cell(m, f"increment{i}", increment, platform)
            m.d.comb += increment.a.eq(self.a[i])
            m.d.sync += self.y[i].eq(increment.y * self._factor)
        return m


class Chain(wiring.Component):
    """Four stages of two kinds."""

    a: In(8)
    y: Out(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = [self.a, self.a]
        for i in range(4):
            stage = ScaleStage(factor=3 + i // 2)
            add_cell(m, f"stage{i}", stage, platform)
            m.d.comb += [stage.a[j].eq(value[j]) for j in range(2)]
            value = list(stage.y)
        m.d.comb += self.y.eq(value[0])
        return m


def test_each_kind_is_one_module() -> None:
    library = CellLibrary("chain")
    text = emit(Chain(), "chain", library=library)
    modules = re.findall(r"^module (\S+?)\(", text, re.MULTILINE)
    assert modules == ["chain", "chain_scale_stage", "chain_scale_stage_1", "chain_increment"]
    assert [name for name, _ in library.modules()] == modules[1:]
    assert text.count("chain_scale_stage stage") == text.count("chain_scale_stage_1 stage") == 2


def test_ports_have_conventional_names() -> None:
    text = emit(ScaleStage(factor=3), "stage")
    ports = re.search(r"^module stage\((.*?)\);", text, re.MULTILINE | re.DOTALL)
    assert ports is not None
    assert set(ports[1].split(", ")) == {"clk", "rst", "a_0", "a_1", "y_0", "y_1"}


def test_emission_is_deterministic() -> None:
    assert emit(Chain(), "chain") == emit(Chain(), "chain")


def test_simulation_uses_submodules() -> None:
    dut = Chain()

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.a, 5)
        await ctx.tick().repeat(4)
        expected = 5
        for factor in (3, 3, 4, 4):
            expected = (expected + 1) * factor % 256
        assert ctx.get(dut.y) == expected

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
