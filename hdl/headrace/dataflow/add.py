"""The adding half of a lane: everything that needs an alignment shift, an addition or a normalisation."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.fp import INFINITY, QUIET_NAN, Unpacked, Unrounded, flushed
from headrace.isa import DataflowOp

__all__ = ["AddPath"]

_FAR = 39
"""An alignment shift from which nothing but the sticky bit of a 24-bit mantissa is left."""


# What the later stages must know about an operation.
_Tail = data.StructLayout(
    {
        "normalise": 1,  # the result is fp32 (FADD, FSUB, I2F)
        "round": 1,  # the result is an integer with a guard and a sticky bit below it (F2I, F2IC)
        "subtract": 1,  # mantissas are subtracted
        "sign": 1,
        "nan": 1,
        "inf": 1,  # fp32: infinite; F2I: saturated
        "exponent": 9,  # biased, of the top bit of the sum
    }
)


class AddPath(wiring.Component):
    """Every operation of a lane but the products (see :class:`headrace.dataflow.lane.Lane` for the list).

    ::

        stage 1   integer sum, minimum and maximum | order by magnitude, exponent difference
        stage 2   shift right, collect the bits lost, add to the larger mantissa
        tail      count leading zeros, shift left

    Integer results, minima and pass-through use the right shifter and skip the rest. Two register stages and a
    combinational tail: ``o`` belongs to the operands of ``LATENCY`` cycles before. One operation a cycle.
    """

    LATENCY = 2

    def __init__(self) -> None:
        # fa, fb: a and b unpacked.
        super().__init__(
            {
                "op": In(DataflowOp),
                "a": In(32),
                "b": In(32),
                "shift": In(5),
                "fa": In(Unpacked),
                "fb": In(Unpacked),
                "o": Out(Unrounded),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operand = Signal(signed(34))
        larger = Signal(24)
        distance = Signal(6)
        tail = Signal(_Tail)
        self._order(m, operand, larger, distance, tail)

        shifted = Signal(signed(64))
        aligned = Signal(34)
        base = Signal(34)
        total = Signal(35)
        tail_2 = Signal(_Tail)
        m.d.comb += [
            shifted.eq(Cat(Const(0, 30), operand).as_signed() >> distance),
            aligned.eq(Cat(shifted[0:30] != 0, shifted[30:63])),
            base.eq(Cat(Const(0, 10), larger)),
        ]
        m.d.sync += [
            total.eq(Mux(tail.subtract, base - aligned, base + aligned)),
            tail_2.eq(tail),
        ]
        self._finish(m, total, tail_2)
        return m

    def _order(self, m: Module, operand: Signal, larger: Signal, distance: Signal, tail: Any) -> None:
        """Stage 1: registers the operand to shift, the mantissa to add to it and the shift distance."""
        op, a, b, fa, fb = self.op, self.a, self.b, self.fa, self.fb
        swap = Signal()
        minus = Signal()
        big, small = Signal(Unpacked), Signal(Unpacked)
        gap = Signal(8)
        to_int = Signal()
        b_sign = Signal()
        m.d.comb += [
            minus.eq((op == DataflowOp.ISUB) | (op == DataflowOp.FSUB)),
            to_int.eq((op == DataflowOp.F2I) | (op == DataflowOp.F2IC)),
            swap.eq(a[0:31] < b[0:31]),
            b_sign.eq(b[31] ^ minus),
            big.eq(Mux(swap, fb, fa)),
            small.eq(Mux(swap | to_int, fa, fb)),
            gap.eq(Mux(to_int, 158, big.exponent) - small.exponent),
        ]

        integer = Signal(signed(34))
        negate = Signal()
        from_int = Signal()
        left, right = Signal(signed(32)), Signal(signed(32))
        m.d.comb += [
            from_int.eq(op == DataflowOp.I2F),
            negate.eq(from_int & a[31]),
            left.eq(Mux(negate, ~a, a)),
            right.eq(Mux(from_int, 0, Mux(minus, ~b, b))),
            integer.eq(left + right + Mux(from_int, negate, minus)),
        ]
        picked = self._pick(m)

        m.d.sync += [larger.eq(0), distance.eq(0), tail.eq(0), operand.eq(picked.as_signed())]
        with m.Switch(op):
            with m.Case(DataflowOp.IADD, DataflowOp.ISUB):
                m.d.sync += operand.eq(integer)
            with m.Case(DataflowOp.ISHR):
                m.d.sync += [operand.eq(integer), distance.eq(self.shift)]
            with m.Case(DataflowOp.I2F):
                m.d.sync += [operand.eq(integer), tail.normalise.eq(1), tail.sign.eq(a[31]), tail.exponent.eq(127 + 33)]
            with m.Case(DataflowOp.F2I, DataflowOp.F2IC):
                m.d.sync += [
                    operand.eq(Cat(Const(0, 9), Mux(fa.nan, 0, fa.mantissa))),
                    distance.eq(Mux(gap > _FAR, _FAR, gap)),
                    tail.round.eq(1),
                    tail.sign.eq(fa.sign & ~fa.nan),
                    tail.inf.eq((fa.exponent >= 158) & ~fa.nan),
                ]
            with m.Case(DataflowOp.FADD, DataflowOp.FSUB):
                m.d.sync += [
                    operand.eq(Cat(Const(0, 9), small.mantissa)),
                    distance.eq(Mux(gap > _FAR, _FAR, gap)),
                    larger.eq(big.mantissa),
                    tail.normalise.eq(1),
                    tail.subtract.eq(fa.sign ^ b_sign),
                    tail.sign.eq(Mux(swap, b_sign, fa.sign)),
                    tail.exponent.eq(big.exponent + 1),
                    tail.nan.eq(fa.nan | fb.nan | (fa.inf & fb.inf & (fa.sign ^ b_sign))),
                    tail.inf.eq(fa.inf | fb.inf),
                ]

    def _pick(self, m: Module) -> Signal:
        """PASS, IMIN, IMAX, FMIN, FMAX: one of the operands, or the quiet NaN."""
        op, a, b = self.op, self.a, self.b
        is_fp, is_max, choose = Signal(), Signal(), Signal()
        left, right = Signal(32), Signal(32)
        key_a, key_b = Signal(signed(32)), Signal(signed(32))
        less = Signal()
        picked = Signal(32)
        m.d.comb += [
            is_fp.eq((op == DataflowOp.FMIN) | (op == DataflowOp.FMAX)),
            is_max.eq((op == DataflowOp.IMAX) | (op == DataflowOp.FMAX)),
            choose.eq(is_fp | (op == DataflowOp.IMIN) | (op == DataflowOp.IMAX)),
            left.eq(Mux(is_fp, flushed(a, self.fa), a)),
            right.eq(Mux(is_fp, flushed(b, self.fb), b)),
            # fp32 is sign and magnitude: inverting the magnitude of negative numbers orders it as integers.
            key_a.eq(left ^ Mux(is_fp & a[31], 0x7FFF_FFFF, 0)),
            key_b.eq(right ^ Mux(is_fp & b[31], 0x7FFF_FFFF, 0)),
            less.eq(key_b < key_a),
            picked.eq(Mux(choose & (less ^ is_max), right, left)),
        ]
        with m.If(is_fp & (self.fa.nan | self.fb.nan)):
            m.d.comb += picked.eq(QUIET_NAN)
        return picked

    def _finish(self, m: Module, total: Signal, tail: Any) -> None:
        """Normalise the sum, or take the integer out of it."""
        normal = total
        count = Signal(6)
        for bit in reversed(range(6)):
            width = 1 << bit
            empty = Signal(name=f"empty_{width}")
            step = Signal(35, name=f"normal_{width}")
            m.d.comb += [
                empty.eq(normal[35 - width : 35] == 0),
                step.eq(Mux(empty, Cat(Const(0, width), normal[0 : 35 - width]), normal)),
                count[bit].eq(empty),
            ]
            normal = step
        exponent = Signal(signed(11))
        zero = Signal()
        o = self.o
        m.d.comb += [
            exponent.eq(tail.exponent - count),
            # A sum of normal numbers that ends up subnormal is exact: no rounding can bring it back.
            zero.eq(~normal[34] | (exponent <= 0)),
            o.fp.eq(tail.normalise),
            o.sign.eq(tail.sign),
        ]
        with m.If(tail.normalise):
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
        with m.Elif(tail.round):
            with m.If(tail.inf):
                # -2**31 is the complement of 2**31 - 1: no carry in either direction.
                m.d.comb += [o.value.eq(0x7FFF_FFFF), o.increment.eq(tail.sign)]
            with m.Else():
                m.d.comb += [o.value.eq(total[2:34]), o.increment.eq(total[1] & (total[0] | total[2]))]
        with m.Else():
            m.d.comb += o.value.eq(total[1:33])
