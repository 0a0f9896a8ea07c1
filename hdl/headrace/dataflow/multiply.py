"""The multiplying half of a lane: fp32 product, integer product and rounding division by a constant."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from headrace.dataflow.fp import INFINITY, QUIET_NAN, bundle, copy, signals
from headrace.dataflow.lane_control import LaneHalf
from headrace.isa import DataflowOp

__all__ = ["MultiplyPath"]

# What the later stages must know about an operation.
_Tail = wiring.Signature(
    {
        "sign": Out(1),
        "nan": Out(1),
        "inf": Out(1),
        "zero": Out(1),
        "exponent": Out(signed(10)),
    }
)


class MultiplyPath(wiring.Component):
    """FMUL, IMUL and IDIVR around one signed 25 x 25-bit multiplier.

    ============  ==========================================================================
    operation     `o`
    ============  ==========================================================================
    `FMUL`        a * b in fp32 (:mod:`headrace.dataflow.fp`)
    `IMUL`        low 32 bits of a * b; both operands within signed 25 bits
    `IDIVR`       sign(a) * ((|a| * b + 2**(sh - 1)) >> sh), |a| < 2**24, 0 <= b < 2**24,
                  1 <= sh <= 31; low 32 bits
    ============  ==========================================================================

    Two register stages and a combinational tail: `o` belongs to the operands of `LATENCY` cycles before and has a
    meaning only if the control says so. One operation a cycle. Operands outside the ranges above give an
    unspecified result.
    """

    LATENCY = 2

    def __init__(self) -> None:
        super().__init__(LaneHalf)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x, y = Signal(signed(25), reset_less=True), Signal(signed(25), reset_less=True)
        tail, tail_2 = bundle(_Tail, "tail"), bundle(_Tail, "tail_2")
        product = Signal(48, reset_less=True)
        with m.If(self.control.multiply_0):
            self._operands(m, x, y, tail)
        with m.If(self.control.multiply_1):
            m.d.sync += [product.eq(x * y), *copy(tail_2, tail)]
        with m.If(self.control.multiply_2):
            self._finish(m, product, tail_2)
        return m

    def _operands(self, m: Module, x: Signal, y: Signal, tail: Any) -> None:
        a, b, fa, fb = self.a, self.b, self.fa, self.fb
        m.d.sync += [s.eq(0) for s in signals(tail)]
        with m.Switch(self.control.op_0):
            with m.Case(DataflowOp.FMUL):
                m.d.sync += [
                    x.eq(fa.mantissa),
                    y.eq(fb.mantissa),
                    tail.sign.eq(fa.sign ^ fb.sign),
                    tail.exponent.eq(fa.exponent + fb.exponent - 127),
                    tail.nan.eq(fa.nan | fb.nan | (fa.inf & fb.zero) | (fb.inf & fa.zero)),
                    tail.inf.eq(fa.inf | fb.inf),
                    tail.zero.eq(fa.zero | fb.zero),
                ]
            with m.Case(DataflowOp.IDIVR):
                m.d.sync += [
                    x.eq(Mux(a[31], -a[0:24], a[0:24])[0:24]),
                    y.eq(b[0:24]),
                    tail.sign.eq(a[31]),
                ]
            with m.Default():
                m.d.sync += [x.eq(a[0:25]), y.eq(b[0:25])]

    def _finish(self, m: Module, product: Signal, tail: Any) -> None:
        o = self.o
        quotient, shift = Signal(48), Signal(5)
        with m.If(self.control.product_2):
            self._normalise(m, product, tail)
        with m.Elif(self.control.divide_2):
            # Dropping sh bits and adding the last one dropped rounds halves up, on the magnitude.
            m.d.comb += [
                shift.eq(self.control.shift_2 - 1),
                quotient.eq(product >> shift),
                o.value.eq(quotient[1:33]),
                o.increment.eq(quotient[0]),
                o.sign.eq(tail.sign),
            ]
        with m.Else():
            m.d.comb += o.value.eq(product[0:32])

    def _normalise(self, m: Module, product: Signal, tail: Any) -> None:
        """The product of two mantissas in [1, 2) lies in [1, 4): at most one position to normalise."""
        o = self.o
        high = product[47]
        normal, sticky = Signal(25), Signal()
        exponent = Signal(signed(11))
        m.d.comb += [
            normal.eq(Mux(high, product[23:48], product[22:47])),
            sticky.eq((product[0:22] != 0) | (high & product[22])),
            exponent.eq(tail.exponent + high),
            o.sign.eq(tail.sign & ~tail.nan),
        ]
        with m.If(tail.nan):
            m.d.comb += o.value.eq(QUIET_NAN)
        with m.Elif(tail.inf | (exponent > 254)):
            m.d.comb += o.value.eq(Mux(tail.zero, 0, INFINITY))
        with m.Elif(~tail.zero & (exponent >= 0)):
            # With an exponent of 0 the product lies just below the smallest normal number: IEEE 754 rounds it up to
            # that number only if all 24 bits are ones, which is when an increment carries into the exponent.
            m.d.comb += [
                o.value.eq(Cat(normal[1:24], exponent[0:8], Const(0, 1))),
                o.increment.eq((normal[0] & (sticky | normal[1])) | (exponent == 0)),
            ]
