"""One lane of a dataflow column: an fp32 and int32 ALU, one operation a cycle."""

from itertools import pairwise
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.dataflow.add import AddPath
from headrace.dataflow.fp import Unrounded, bundle, copy, unpack
from headrace.dataflow.lane_control import LaneStages
from headrace.dataflow.multiply import MultiplyPath

__all__ = ["Lane"]


class Lane(wiring.Component):
    """An ALU of fixed latency.

    `o` is the result of the operation whose operands, and whose control (`LaneControl`), were in stage 0 `LATENCY`
    cycles before; one operation is accepted each cycle and nothing stalls. fp32 rules are those of
    :mod:`headrace.dataflow.fp`; integers are two's complement and wrap.

    =========== ================================================================================
    operation   `o`
    =========== ================================================================================
    `PASS`      a
    `IADD`      a + b
    `ISUB`      a - b
    `IMUL`      low 32 bits of a * b, both within signed 25 bits
    `IMIN`      smaller, `IMAX` larger of a and b as signed integers
    `ISHR`      (a + b) >> shift, rounded down, the sum not wrapped before the shift
    `IDIVR`     sign(a) * ((|a| * b + 2**(shift - 1)) >> shift); |a| < 2**24, 0 <= b < 2**24, shift >= 1
    `I2F`       a as fp32
    `F2I`       fp32 a as an integer, halves to even, saturated to 32 bits, NaN to 0
    `F2IC`      as F2I, then b[0:16] where that is less, else b[16:32] where more, both signed
    `FADD`      a + b, `FSUB` a - b, `FMUL` a * b
    `FMIN`      smaller, `FMAX` larger of a and b, with -0 < +0; NaN if either is NaN
    `IAND`      a & b, `IOR` a | b, `IXOR` a ^ b
    `ISHL`      a << (b & 31)
    `FRCP`      1 / a to three bits: see `headrace.dataflow.reciprocal`
    `ILT`       -1 if a < b as signed integers, else 0
    `FLT`       -1 if a < b, else 0, with -0 equal to +0; 0 if either is NaN
    `EXP2`      2**(a / 2**11) as fp32: see `headrace.dataflow.exponential`
    `FRSQ`      1 / sqrt(a) to three bits: see `headrace.dataflow.reciprocal`
    others      a
    =========== ================================================================================
    """

    LATENCY = 4

    def __init__(self) -> None:
        super().__init__({"control": In(LaneStages), "a": In(32), "b": In(32), "o": Out(32)})

    @property
    def cell_key(self) -> tuple[()]:
        """Parameters that tell one lane module from another: none."""
        return ()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        control = self.control
        m.submodules.add = add = AddPath()
        m.submodules.multiply = multiply = MultiplyPath()
        for path in (add, multiply):
            connect(m, flipped(control), path.control)
            m.d.comb += [path.a.eq(self.a), path.b.eq(self.b)]
            unpack(m, self.a, path.fa)
            unpack(m, self.b, path.fb)

        limits = [self.b, *(Signal(32, name=f"limits_{stage}", reset_less=True) for stage in (1, 2, 3))]
        m.d.sync += [after.eq(before) for before, after in pairwise(limits)]
        chosen = bundle(Unrounded, "chosen")
        with m.If(control.multiply_2):
            m.d.sync += copy(chosen, multiply.o)
        with m.Elif(control.add_2):
            m.d.sync += copy(chosen, add.o)
        result = Signal(32, reset_less=True)
        m.d.comb += self.o.eq(result)
        with m.If(control.en_3):
            self._round(m, chosen, limits[3], result)
        return m

    def _round(self, m: Module, chosen: Any, limits: Signal, result: Signal) -> None:
        """Last stage: the rounding increment, the sign, the clamp."""
        rounded, total = Signal(31), Signal(signed(32))
        low, high = limits[0:16].as_signed(), limits[16:32].as_signed()
        with m.If(self.control.fp_3):
            m.d.comb += rounded.eq(chosen.value[0:31] + chosen.increment)
            m.d.sync += result.eq(Cat(Mux(rounded[23:31] == 0, 0, rounded), chosen.sign))
        with m.Else():
            m.d.comb += total.eq(Mux(chosen.sign, ~chosen.value, chosen.value) + (chosen.increment ^ chosen.sign))
            m.d.sync += result.eq(total)
            with m.If(self.control.clamp_3 & (total < low)):
                m.d.sync += result.eq(low)
            with m.Elif(self.control.clamp_3 & (total > high)):
                m.d.sync += result.eq(high)
