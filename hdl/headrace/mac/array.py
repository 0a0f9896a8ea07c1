"""R x C processing elements in lock step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import Precision, index_bits
from headrace.mac.activation_sum import ActivationSum
from headrace.mac.pe import Pe
from headrace.mac.products import MULTIPLIERS
from headrace.mac.rescale import ScalePipeline

__all__ = ["MacArray"]


class MacArray(wiring.Component):
    """The PEs with the registers of their operands and scales, control pipeline and accumulator drain. No handshake.

    In a cycle with `step`, every PE takes a phase in `mode`: row r gets `a[r]`, column c gets `w[c]`, 16 bits a lane,
    in which code i of `a` meets code i of `w`, the first one in the lowest bits:

    | Mode | codes of a | codes of w |
    |------|------------|------------|
    | A8W8 | 1 of 8 bits | 1 of 8 bits |
    | A8W4 | 2 of 8 bits | 2 of 4 bits |
    | A4W4 | 4 of 4 bits | 4 of 4 bits |

    They are unsigned with `act_unsigned`, `weight_unsigned`. With `depthwise` (A8W8; machines with `taps`) PE (r, c)
    takes the bytes of `dw[r*C + c]` as activations of its first lanes, and 0 in the others.

    `restart` marks the first phase of a sum, `finish` its last one, after which the sum goes to accumulator `t` of
    `buffer` (replacing it when `overwrite`). A sum is two phases at most or, with `scaled` (lanes <= 16), a group of 32
    codes or, in A8W8, a unit of 16. It is then scaled by ka, sd, sm, kc of the phase with `finish`:

        (sd * psum + ((sm * xsum) << kc)) >>r ka                        A8W8: sd = 8, sm = 0

    Sums of any kind follow each other without a gap and arrive in order. `overflow` is valid LATENCY cycles after
    `finish`, and from DRAIN_LATENCY cycles after on a drain read finds the sum.

    Drain: `drain_data[c]` is the accumulator of (`drain_row`, c) named with `drain_en` ACC_LATENCY = 2 cycles before.
    """

    LATENCY = 1 + Pe.LATENCY
    DRAIN_LATENCY = LATENCY - 1  # a drain read looks at the accumulators a cycle after its request

    def __init__(self, *, rows: int, cols: int, lanes: int, accs: int, multiplier: str, taps: int) -> None:
        self._rows = rows
        self._cols = cols
        self._lanes = lanes
        self._accs = accs
        self._multiplier = multiplier
        self._products = MULTIPLIERS[multiplier]
        self._taps = taps
        ports: dict[str, Any] = {
            "step": In(1),
            "mode": In(Precision),
            "restart": In(1),
            "finish": In(1),
            "scaled": In(1),
            "act_unsigned": In(1),
            "weight_unsigned": In(1),
            "overwrite": In(1),
            "buffer": In(1),
            "t": In(index_bits(accs)),
            "a": In(data.ArrayLayout(16 * lanes, rows)),
            "w": In(data.ArrayLayout(16 * lanes, cols)),
            "ka": In(data.ArrayLayout(3, rows)),
            "sd": In(data.ArrayLayout(8, cols)),
            "sm": In(data.ArrayLayout(signed(8), cols)),
            "kc": In(data.ArrayLayout(3, cols)),
            "overflow": Out(1),
            "drain_en": In(1),
            "drain_buffer": In(1),
            "drain_t": In(index_bits(accs)),
            "drain_row": In(index_bits(rows)),
            "drain_data": Out(data.ArrayLayout(32, cols)),
        }
        if taps:
            ports |= {"depthwise": In(1), "dw": In(data.ArrayLayout(8 * taps, rows * cols))}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cells = [[self._pe(m, f"pe_{r}_{c}", platform) for c in range(self._cols)] for r in range(self._rows)]
        stages = self._control(m, [pe for row in cells for pe in row])
        self._operands(m, cells, stages[0].multiply)
        if self._taps:
            self._depthwise_operands(m, cells)
        self._activation_sums(m, cells, stages, platform)
        self._scales(m, cells, stages)
        self._drain(m, cells)
        return m

    def _pe(self, m: Module, name: str, platform: object) -> Pe:
        pe = Pe(lanes=self._lanes, accs=self._accs, multiplier=self._multiplier, taps=self._taps)
        add_cell(m, name, pe, platform)
        return pe

    def _address(self, buffer: Value, t: Value) -> Value:
        return Mux(buffer, self._accs, 0) + t

    def _operands(self, m: Module, cells: list[list[Pe]], load: Value) -> None:
        """Chooses the operands of a lane once a row and once a column."""
        hide = self.depthwise if self._taps else 0
        for j in range(self._lanes):
            for r, row in enumerate(cells):
                values = self._products.activations(m, self.a[r].word_select(j, 16), self.mode, self.act_unsigned)
                values = [Mux(hide, 0, value) for value in values]
                for i, register in enumerate(self._registers(m, f"a_{r}_{j}", load, values)):
                    m.d.comb += [pe.a[j][i].eq(register) for pe in row]
            for c in range(self._cols):
                values = self._products.weights(m, self.w[c].word_select(j, 16), self.mode, self.weight_unsigned)
                for i, register in enumerate(self._registers(m, f"w_{c}_{j}", load, values)):
                    m.d.comb += [row[c].w[j][i].eq(register) for row in cells]

    def _depthwise_operands(self, m: Module, cells: list[list[Pe]]) -> None:
        """Bytes of single PEs, which have the registers; these are 0, and not written, outside of depthwise phases."""
        load = self._while_used(m, self.depthwise)
        for n, pe in enumerate(pe for row in cells for pe in row):
            m.d.comb += [
                pe.dw.eq(self.dw[n]),
                pe.dw_load.eq(load),
                pe.depthwise.eq(self.depthwise),
                pe.act_unsigned.eq(self.act_unsigned),
            ]

    def _while_used(self, m: Module, used: Value) -> Signal:
        """Steps in which operands are `used`, and the step after them, which clears their registers."""
        holding = Signal(init=1)  # the registers may hold something else than 0
        load = Signal()
        m.d.comb += load.eq(self.step & (used | holding))
        with m.If(self.step):
            m.d.sync += holding.eq(used)
        return load

    def _registers(self, m: Module, name: str, load: Value, values: list[Value]) -> list[Signal]:
        """A register for each operand of a lane."""
        registers = []
        for i, value in enumerate(values):
            register = Signal(self._products.bits, name=f"{name}_{i}", reset_less=True)
            with m.If(load[i]):
                m.d.sync += register.eq(value)
            registers.append(register)
        return registers

    def _control(self, m: Module, pes: list[Pe]) -> list[Any]:
        """Control of the stages: ports, operands, multiply, add, scale, combine and accumulate."""
        stage = data.StructLayout(
            {
                "step": 1,
                "multiply": self._products.operands,
                "sum": 1,  # the row sums of activations take part
                "restart": 1,
                "finish": 1,
                "steer": 2,
                "wide": 1,
                "overwrite": 1,
                "address": index_bits(2 * self._accs),
            }
        )
        stages: list[Any] = [Signal(stage, name=f"stage{i}") for i in range(self.LATENCY)]
        accumulated = Signal()
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        m.d.sync += accumulated.eq(stages[5].finish)
        m.d.comb += [
            stages[0].step.eq(self.step),
            stages[0].multiply.eq(Cat(self._while_used(m, used) for used in self._products.used(self.mode))),
            stages[0].sum.eq(self.step & self.scaled & (self.mode != Precision.A8W8)),
            stages[0].restart.eq(self.restart),
            stages[0].finish.eq(self.step & self.finish),
            stages[0].steer.eq(self._products.steer(self.mode, self.act_unsigned, self.weight_unsigned)),
            stages[0].wide.eq(self.mode != Precision.A4W4),
            stages[0].overwrite.eq(self.overwrite),
            stages[0].address.eq(self._address(self.buffer, self.t)),
        ]
        for pe in pes:
            m.d.comb += [
                pe.multiply.eq(stages[1].multiply),
                pe.add.eq(stages[2].step),
                pe.restart.eq(stages[2].restart),
                pe.steer.eq(stages[2].steer),
                pe.scale.eq(stages[3].finish),
                pe.combine.eq(stages[4].finish),
                pe.accumulate.eq(stages[5].finish),
                pe.overwrite.eq(stages[5].overwrite),
                pe.address.eq(stages[5].address),
            ]
        # A cell keeps its registers through a reset of the engine; its flag counts only after an accumulation.
        m.d.comb += self.overflow.eq(accumulated & Cat(pe.overflow for pe in pes).any())
        return stages

    def _activation_sums(self, m: Module, cells: list[list[Pe]], stages: list[Any], platform: object) -> None:
        low_signed = Signal()
        m.d.comb += low_signed.eq(~self.act_unsigned & (self.mode == Precision.A4W4))
        for r, row in enumerate(cells):
            xsum = ActivationSum(lanes=self._lanes)
            add_cell(m, f"xsum_{r}", xsum, platform)
            m.d.comb += [
                *(xsum.a[j].eq(self.a[r].word_select(j, 16)) for j in range(self._lanes)),
                xsum.low_signed.eq(low_signed),
                xsum.high_signed.eq(~self.act_unsigned),
                xsum.load.eq(stages[0].sum),
                xsum.add.eq(stages[1].sum),
                xsum.accumulate.eq(stages[2].sum),
                xsum.restart.eq(stages[2].restart),
                xsum.wide.eq(stages[2].wide),
                *(pe.xsum.eq(xsum.xsum) for pe in row),
            ]

    def _scales(self, m: Module, cells: list[list[Pe]], stages: list[Any]) -> None:
        m.submodules.scales = scales = ScalePipeline(rows=self._rows, cols=self._cols)
        m.d.comb += [
            scales.take.eq(stages[0].finish),
            scales.valid.eq(Cat(stage.finish for stage in stages[1:5])),
            scales.scaled.eq(self.scaled),
            scales.wide_weights.eq(self.mode == Precision.A8W8),
            scales.ka.eq(self.ka),
            scales.sd.eq(self.sd),
            scales.sm.eq(self.sm),
            scales.kc.eq(self.kc),
        ]
        for r, row in enumerate(cells):
            for c, pe in enumerate(row):
                m.d.comb += [
                    pe.sd.eq(scales.sd_out[c]),
                    pe.offset.eq(scales.offset_out[c]),
                    pe.half.eq(scales.half_out[r]),
                    pe.ka.eq(scales.ka_out[r]),
                ]

    def _drain(self, m: Module, cells: list[list[Pe]]) -> None:
        address = Signal(range(2 * self._accs))
        row = Signal(range(self._rows))
        reading = Signal()
        m.d.sync += reading.eq(self.drain_en)
        with m.If(self.drain_en):
            m.d.sync += [address.eq(self._address(self.drain_buffer, self.drain_t)), row.eq(self.drain_row)]
        lines = [Cat(pe.drain_data for pe in line) for line in cells]
        with m.If(reading), m.Switch(row):
            for r, line in enumerate(lines):
                with m.Case(r):
                    m.d.sync += cast(Value, self.drain_data).eq(line)
        for line_cells in cells:
            for pe in line_cells:
                m.d.comb += pe.drain_address.eq(address)
