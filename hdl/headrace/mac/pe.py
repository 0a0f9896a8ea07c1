"""The processing element: multipliers, one partial sum, the use of group scales, 2T accumulators."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from headrace.config import index_bits
from headrace.mac.products import MULTIPLIERS
from headrace.mac.rescale import OFFSET, XSUM, Rescale

__all__ = ["Pe"]


def partial_bits(lanes: int) -> int:
    """Width of a partial sum, signed: two phases, or a unit of 16 if that is more, of unsigned bytes' products.

    A group of 32 products of a byte and a nibble is smaller, and so are two phases with two of them a lane.
    """
    return bits_for(max(16, 2 * lanes) * 255 * 255) + 1


class Pe(wiring.Component):
    """Dot products, summed over the phases of a sum, scaled and added to an accumulator.

    Control is pipelined by the array, which serves all PEs with one set of registers; every input belongs to its stage:

    1. `multiply`: products of the lanes' operands `a` and `w` (prepared as `multiplier` wants them: `Products`) are
       added over the lanes; bit i enables those of operand i of a lane. In depthwise phases `a` is 0 in the first
       lanes, which multiply the bytes `dw` that were there with `dw_load` the cycle before; `dw_load` without
       `depthwise` ends this.
    2. `add`: the phase's sum, made from these as `steer` says, is added to the partial sum, or replaces it when
       `restart` is set (first phase of a sum).
    3. `scale`, 4. `combine`: group scales (`Rescale`); row: xsum, half, ka; column: sd, offset.
    5. `accumulate`: the result is added to accumulator `address`, or replaces it when `overwrite` is set. The next
       cycle may name the same accumulator. `overflow` tells in the following cycle whether the sum left int32.

    `drain_data` is accumulator `drain_address`, combinational. Registers and accumulators have no reset value.
    """

    LATENCY = 5  # cycles from operands to the accumulator

    def __init__(self, *, lanes: int, accs: int, multiplier: str, taps: int) -> None:
        self._lanes = lanes
        self._accs = accs
        self._multiplier = multiplier
        self._taps = taps
        self._products = MULTIPLIERS[multiplier]
        ports: dict[str, Any] = {
            "a": In(self._products.bits).array(lanes, self._products.operands),
            "w": In(self._products.bits).array(lanes, self._products.operands),
            "multiply": In(self._products.operands),
            "add": In(1),
            "restart": In(1),
            "steer": In(2),
            "scale": In(1),
            "xsum": In(XSUM),
            "sd": In(8),
            "offset": In(OFFSET),
            "combine": In(1),
            "half": In(7),
            "accumulate": In(1),
            "ka": In(3),
            "overwrite": In(1),
            "address": In(index_bits(2 * accs)),
            "overflow": Out(1),
            "drain_address": In(index_bits(2 * accs)),
            "drain_data": Out(32),
        }
        if taps:
            ports |= {"dw": In(8 * taps), "dw_load": In(1), "depthwise": In(1), "act_unsigned": In(1)}
        super().__init__(ports)

    @property
    def cell_key(self) -> Hashable:
        """Parameters that tell one PE module from another."""
        return (self._lanes, self._accs, self._multiplier, self._taps)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        partial = Signal(signed(partial_bits(self._lanes)), reset_less=True)
        total = self._phase_sum(m)
        with m.If(self.add):
            m.d.sync += partial.eq(total + Mux(self.restart, 0, partial))
        m.submodules.rescale = rescale = Rescale(psum_bits=len(partial))
        m.d.comb += [
            rescale.psum.eq(partial),
            rescale.scale.eq(self.scale),
            rescale.xsum.eq(self.xsum),
            rescale.sd.eq(self.sd),
            rescale.offset.eq(self.offset),
            rescale.combine.eq(self.combine),
            rescale.half.eq(self.half),
            rescale.ka.eq(self.ka),
        ]
        self._accumulate(m, rescale.term)
        return m

    def _phase_sum(self, m: Module) -> Value:
        """Sum of the products of a phase, from registers."""
        taps = self._tap_operands(m)
        sums: list[list[Value]] = []
        for i in range(self._products.operands):
            a: list[Value] = [self.a[j][i] for j in range(self._lanes)]
            for j, tap in enumerate(taps):
                a[j] = Signal(self._products.bits, name=f"operand_{j}_{i}")
                m.d.comb += a[j].eq(self.a[j][i] | tap[i])
            w = [self.w[j][i] for j in range(self._lanes)]
            registers: list[Value] = []
            for k, value in enumerate(self._products.sums(a, w)):
                register = Signal(value.shape(), name=f"sum_{i}_{k}", reset_less=True)
                with m.If(self.multiply[i]):
                    m.d.sync += register.eq(value)
                registers.append(register)
            sums.append(registers)
        return self._products.total(sums, self.steer)

    def _tap_operands(self, m: Module) -> list[list[Value]]:
        """Registered operands of the PE's own activations for each tap, 0 outside of depthwise phases."""
        taps: list[list[Value]] = []
        for j in range(self._taps):
            values = self._products.tap(m, self.dw.word_select(j, 8), self.act_unsigned)
            registers: list[Value] = []
            for i, value in enumerate(values):
                register = Signal(self._products.bits, name=f"tap_{j}_{i}", reset_less=True)
                with m.If(self.dw_load):
                    m.d.sync += register.eq(Mux(self.depthwise, value, 0))
                registers.append(register)
            taps.append(registers)
        return taps

    def _accumulate(self, m: Module, term: Value) -> None:
        m.submodules.accumulators = accumulators = memory.Memory(shape=signed(32), depth=2 * self._accs, init=[])
        write = accumulators.write_port()
        read = accumulators.read_port(domain="comb")
        drain = accumulators.read_port(domain="comb")
        total = Signal(signed(33))
        m.d.comb += [
            read.addr.eq(self.address),
            total.eq(term + Mux(self.overwrite, 0, read.data)),
            write.addr.eq(self.address),
            write.data.eq(total),
            write.en.eq(self.accumulate),
            drain.addr.eq(self.drain_address),
            self.drain_data.eq(drain.data),
        ]
        m.d.sync += self.overflow.eq(self.accumulate & (total[32] != total[31]))
