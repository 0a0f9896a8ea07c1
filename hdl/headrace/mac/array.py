"""R x C processing elements in lock step."""

from __future__ import annotations

from typing import cast

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.mac.pe import Pe

__all__ = ["MacArray"]


class MacArray(wiring.Component):
    """The PEs with their operand registers, control pipeline and accumulator drain. No handshake inside.

    In a cycle with `step`, every PE takes phase operands: row r gets `a[r]`, column c gets `w[c]`. `restart` marks the
    first phase of a step, `finish` its last one, after which the step's sum goes to accumulator `t` of `buffer`
    (replacing it when `overwrite`). `overflow` is valid LATENCY cycles after, and from DRAIN_LATENCY cycles after on a
    drain read finds the sum.

    Drain: `drain_data[c]` is the accumulator of (`drain_row`, c) named with `drain_en` ACC_LATENCY = 2 cycles before.
    """

    LATENCY = 1 + Pe.LATENCY
    DRAIN_LATENCY = LATENCY - 1  # a drain read looks at the accumulators a cycle after its request

    def __init__(self, *, rows: int, cols: int, lanes: int, accs: int) -> None:
        self._rows = rows
        self._cols = cols
        self._lanes = lanes
        self._accs = accs
        super().__init__(
            {
                "step": In(1),
                "restart": In(1),
                "finish": In(1),
                "overwrite": In(1),
                "buffer": In(1),
                "t": In(index_bits(accs)),
                "a": In(data.ArrayLayout(8 * lanes, rows)),
                "w": In(data.ArrayLayout(8 * lanes, cols)),
                "overflow": Out(1),
                "drain_en": In(1),
                "drain_buffer": In(1),
                "drain_t": In(index_bits(accs)),
                "drain_row": In(index_bits(rows)),
                "drain_data": Out(data.ArrayLayout(32, cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cells = [[self._pe(m, f"pe_{r}_{c}", platform) for c in range(self._cols)] for r in range(self._rows)]
        self._operands(m, cells)
        self._control(m, [pe for row in cells for pe in row])
        self._drain(m, cells)
        return m

    def _pe(self, m: Module, name: str, platform: object) -> Pe:
        pe = Pe(lanes=self._lanes, accs=self._accs)
        add_cell(m, name, pe, platform)
        return pe

    def _address(self, buffer: Value, t: Value) -> Value:
        return Mux(buffer, self._accs, 0) + t

    def _operands(self, m: Module, cells: list[list[Pe]]) -> None:
        a = Signal(data.ArrayLayout(8 * self._lanes, self._rows))
        w = Signal(data.ArrayLayout(8 * self._lanes, self._cols))
        with m.If(self.step):
            m.d.sync += [a.eq(self.a), w.eq(self.w)]
        for r, row in enumerate(cells):
            for c, pe in enumerate(row):
                m.d.comb += [pe.a.eq(a[r]), pe.w.eq(w[c])]

    def _control(self, m: Module, pes: list[Pe]) -> None:
        """Control of the operand, multiply, add and accumulate stages."""
        stage = data.StructLayout(
            {"step": 1, "restart": 1, "finish": 1, "overwrite": 1, "address": index_bits(2 * self._accs)}
        )
        stages = [Signal(stage, name=f"stage{i}") for i in range(self.LATENCY)]
        accumulated = Signal()
        m.d.sync += [
            stages[1].eq(stages[0]),
            stages[2].eq(stages[1]),
            stages[3].eq(stages[2]),
            accumulated.eq(stages[3].step & stages[3].finish),
        ]
        m.d.comb += [
            stages[0].step.eq(self.step),
            stages[0].restart.eq(self.restart),
            stages[0].finish.eq(self.finish),
            stages[0].overwrite.eq(self.overwrite),
            stages[0].address.eq(self._address(self.buffer, self.t)),
        ]
        for pe in pes:
            m.d.comb += [
                pe.multiply.eq(stages[1].step),
                pe.add.eq(stages[2].step),
                pe.restart.eq(stages[2].restart),
                pe.accumulate.eq(stages[3].step & stages[3].finish),
                pe.overwrite.eq(stages[3].overwrite),
                pe.address.eq(stages[3].address),
            ]
        # A cell keeps its registers through a reset of the engine; its flag counts only after an accumulation.
        m.d.comb += self.overflow.eq(accumulated & Cat(pe.overflow for pe in pes).any())

    def _drain(self, m: Module, cells: list[list[Pe]]) -> None:
        address = Signal(range(2 * self._accs))
        row = Signal(range(self._rows))
        with m.If(self.drain_en):
            m.d.sync += [address.eq(self._address(self.drain_buffer, self.drain_t)), row.eq(self.drain_row)]
        lines = [Cat(pe.drain_data for pe in line) for line in cells]
        with m.Switch(row):
            for r, line in enumerate(lines):
                with m.Case(r):
                    m.d.sync += cast(Value, self.drain_data).eq(line)
        for line_cells in cells:
            for pe in line_cells:
                m.d.comb += pe.drain_address.eq(address)
