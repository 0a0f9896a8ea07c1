"""The adding half of a lane: everything that needs an alignment shift, an addition or a normalisation."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from headrace.dataflow.exponential import exponential
from headrace.dataflow.fp import INFINITY, QUIET_NAN, bundle, copy, flushed, signals
from headrace.dataflow.lane_control import LaneHalf
from headrace.dataflow.reciprocal import reciprocal, reciprocal_root
from headrace.isa import DataflowOp

__all__ = ["AddPath"]

_FAR = 39
"""An alignment shift from which nothing but the sticky bit of a 24-bit mantissa is left."""

# What the later stages must know about an operation.
_Tail = wiring.Signature(
    {
        "subtract": Out(1),  # mantissas are subtracted
        "sign": Out(1),
        "nan": Out(1),
        "inf": Out(1),  # fp32: infinite; F2I: saturated
        "exponent": Out(9),  # biased, of the top bit of the sum
    }
)


class AddPath(wiring.Component):
    """Every operation of a lane but the products (see :class:`headrace.dataflow.lane.Lane` for the list).

    ::

        stage 1   integer sum, minimum and maximum | order by magnitude, exponent difference
        stage 2   shift right, collect the bits lost, add to the larger mantissa
        tail      count leading zeros, shift left

    Integer results, minima and pass-through use the right shifter and skip the rest; ISHL does so with its bits
    reversed. Two register stages and a combinational tail: `o` belongs to the operands of `LATENCY` cycles before and
    has a meaning only if the control says so. One operation a cycle. Statements are grouped under the condition they
    serve, so that a compiled simulation skips what is idle.
    """

    LATENCY = 2

    def __init__(self) -> None:
        super().__init__(LaneHalf)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operand, larger = Signal(signed(34), reset_less=True), Signal(24, reset_less=True)
        distance, tail = Signal(6, reset_less=True), bundle(_Tail, "tail")
        with m.If(self.control.add_0):
            self._order(m, operand, larger, distance, tail)

        shifted, aligned, base = Signal(signed(64)), Signal(34), Signal(34)
        total, tail_2 = Signal(35, reset_less=True), bundle(_Tail, "tail_2")
        with m.If(self.control.add_1):
            m.d.comb += [
                shifted.eq(Cat(Const(0, 30), operand).as_signed() >> distance),
                aligned.eq(Cat(shifted[0:30] != 0, shifted[30:63])),
                base.eq(Cat(Const(0, 10), larger)),
            ]
            m.d.sync += [total.eq(Mux(tail.subtract, base - aligned, base + aligned)), *copy(tail_2, tail)]
        with m.If(self.control.add_2):
            self._finish(m, total, tail_2)
        return m

    def _order(self, m: Module, operand: Signal, larger: Signal, distance: Signal, tail: Any) -> None:
        """Stage 1: registers the operand to shift, the mantissa to add to it and the shift distance."""
        op, a, b, fa = self.control.op_0, self.a, self.b, self.fa
        integer, picked = Signal(signed(34)), Signal(32)
        m.d.sync += [larger.eq(0), distance.eq(0), *(s.eq(0) for s in signals(tail))]
        with m.Switch(op):
            with m.Case(DataflowOp.IADD, DataflowOp.ISHR):
                m.d.comb += integer.eq(a.as_signed() + b.as_signed())
                m.d.sync += [operand.eq(integer), distance.eq(Mux(op == DataflowOp.ISHR, self.control.shift_0, 0))]
            with m.Case(DataflowOp.ISUB):
                m.d.comb += integer.eq(a.as_signed() - b.as_signed())
                m.d.sync += operand.eq(integer)
            with m.Case(DataflowOp.I2F):
                m.d.comb += integer.eq(Mux(a[31], -a.as_signed(), a))
                m.d.sync += [operand.eq(integer), tail.sign.eq(a[31]), tail.exponent.eq(127 + 33)]
            with m.Case(DataflowOp.F2I, DataflowOp.F2IC):
                gap = Signal(8)
                m.d.comb += gap.eq(158 - fa.exponent)
                m.d.sync += [
                    operand.eq(Cat(Const(0, 9), Mux(fa.nan, 0, fa.mantissa))),
                    distance.eq(Mux(gap > _FAR, _FAR, gap)),
                    tail.sign.eq(fa.sign & ~fa.nan),
                    tail.inf.eq((fa.exponent >= 158) & ~fa.nan),
                ]
            with m.Case(DataflowOp.ISHL):
                m.d.sync += [operand.eq(a[::-1]), distance.eq(b[0:5])]
            with m.Case(DataflowOp.FADD, DataflowOp.FSUB):
                self._order_mantissas(m, operand, larger, distance, tail)
            with m.Default():
                self._pick(m, picked)
                m.d.sync += operand.eq(picked)

    def _order_mantissas(self, m: Module, operand: Signal, larger: Signal, distance: Signal, tail: Any) -> None:
        """FADD, FSUB: the operand of smaller magnitude is shifted to the exponent of the other."""
        fa, fb = self.fa, self.fb
        swap, b_sign, subtract = Signal(), Signal(), Signal()
        exponent, gap = Signal(8), Signal(8)
        m.d.comb += [
            swap.eq(self.a[0:31] < self.b[0:31]),
            b_sign.eq(fb.sign ^ (self.control.op_0 == DataflowOp.FSUB)),
            subtract.eq(fa.sign ^ b_sign),
            exponent.eq(Mux(swap, fb.exponent, fa.exponent)),
            gap.eq(exponent - Mux(swap, fa.exponent, fb.exponent)),
        ]
        m.d.sync += [
            operand.eq(Cat(Const(0, 9), Mux(swap, fa.mantissa, fb.mantissa))),
            distance.eq(Mux(gap > _FAR, _FAR, gap)),
            larger.eq(Mux(swap, fb.mantissa, fa.mantissa)),
            tail.subtract.eq(subtract),
            tail.sign.eq(Mux(swap, b_sign, fa.sign)),
            tail.exponent.eq(exponent + 1),
            tail.nan.eq(fa.nan | fb.nan | (fa.inf & fb.inf & subtract)),
            tail.inf.eq(fa.inf | fb.inf),
        ]

    def _pick(self, m: Module, picked: Signal) -> None:
        """Results of one operand or bit by bit, which need no addition."""
        op, a, b = self.control.op_0, self.a, self.b
        with m.Switch(op):
            with m.Case(DataflowOp.IMIN):
                m.d.comb += picked.eq(Mux(b.as_signed() < a.as_signed(), b, a))
            with m.Case(DataflowOp.IMAX):
                m.d.comb += picked.eq(Mux(b.as_signed() > a.as_signed(), b, a))
            with m.Case(DataflowOp.IAND):
                m.d.comb += picked.eq(a & b)
            with m.Case(DataflowOp.IOR):
                m.d.comb += picked.eq(a | b)
            with m.Case(DataflowOp.IXOR):
                m.d.comb += picked.eq(a ^ b)
            with m.Case(DataflowOp.FRCP):
                m.d.comb += picked.eq(reciprocal(m, a, self.fa))
            with m.Case(DataflowOp.ILT):
                m.d.comb += picked.eq((a.as_signed() < b.as_signed()).replicate(32))
            with m.Case(DataflowOp.EXP2):
                m.d.comb += picked.eq(exponential(m, a))
            with m.Case(DataflowOp.FRSQ):
                m.d.comb += picked.eq(reciprocal_root(m, a, self.fa))
            with m.Case(DataflowOp.FMIN, DataflowOp.FMAX, DataflowOp.FLT):
                self._compare(m, picked)
            with m.Default():
                m.d.comb += picked.eq(a)

    def _compare(self, m: Module, picked: Signal) -> None:
        """FMIN, FMAX, FLT."""
        op, a, b, fa, fb = self.control.op_0, self.a, self.b, self.fa, self.fb
        left, right = Signal(32), Signal(32)
        key_a, key_b, nan = Signal(signed(32)), Signal(signed(32)), Signal()
        m.d.comb += [
            left.eq(flushed(a, fa)),
            right.eq(flushed(b, fb)),
            # fp32 is sign and magnitude: inverting the magnitude of negative numbers orders it as integers.
            key_a.eq(Cat(left[:31] ^ a[31].replicate(31), a[31])),
            key_b.eq(Cat(right[:31] ^ b[31].replicate(31), b[31])),
            nan.eq(fa.nan | fb.nan),
        ]
        with m.If(op == DataflowOp.FLT):
            m.d.comb += picked.eq(((key_a < key_b) & ~nan & ~(fa.zero & fb.zero)).replicate(32))
        with m.Elif(nan):
            m.d.comb += picked.eq(QUIET_NAN)
        with m.Else():
            m.d.comb += picked.eq(Mux((key_b < key_a) ^ (op == DataflowOp.FMAX), right, left))

    def _finish(self, m: Module, total: Signal, tail: Any) -> None:
        """Normalise the sum, or take the integer out of it."""
        o = self.o
        m.d.comb += o.sign.eq(tail.sign)
        with m.If(self.control.normalise_2):
            self._normalise(m, total, tail)
        with m.Elif(self.control.round_2):
            with m.If(tail.inf):
                # -2**31 is the complement of 2**31 - 1: no carry in either direction.
                m.d.comb += [o.value.eq(0x7FFF_FFFF), o.increment.eq(tail.sign)]
            with m.Else():
                m.d.comb += [o.value.eq(total[2:34]), o.increment.eq(total[1] & (total[0] | total[2]))]
        with m.Elif(self.control.reverse_2):
            m.d.comb += o.value.eq(total[1:33][::-1])
        with m.Else():
            m.d.comb += o.value.eq(total[1:33])

    def _normalise(self, m: Module, total: Signal, tail: Any) -> None:
        normal = total
        empty: list[Signal] = []
        for bit in reversed(range(6)):
            width = 1 << bit
            step, none = Signal(35, name=f"normal_{width}"), Signal(name=f"empty_{width}")
            m.d.comb += [
                none.eq(normal[35 - width : 35] == 0),
                step.eq(Mux(none, Cat(Const(0, width), normal[0 : 35 - width]), normal)),
            ]
            empty.insert(0, none)
            normal = step
        exponent = Signal(signed(11))
        zero = Signal()
        o = self.o
        m.d.comb += [
            exponent.eq(tail.exponent - Cat(empty)),
            # A sum of normal numbers that ends up subnormal is exact: no rounding can bring it back.
            zero.eq(~normal[34] | (exponent <= 0)),
        ]
        with m.If(tail.nan):
            m.d.comb += [o.value.eq(QUIET_NAN), o.sign.eq(0)]
        with m.Elif(tail.inf | (~zero & (exponent > 254))):
            m.d.comb += o.value.eq(INFINITY)
        with m.Elif(zero):
            m.d.comb += o.sign.eq(tail.sign & ~(tail.subtract & (total == 0)))
        with m.Else():
            m.d.comb += [
                o.value.eq(Cat(normal[11:34], exponent[0:8])),
                o.increment.eq(normal[10] & ((normal[0:10] != 0) | normal[11])),
            ]
