"""The multiplying half of a lane: fp32 product, integer product and rounding division by a constant."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.fp import INFINITY, QUIET_NAN, Unpacked, Unrounded
from headrace.isa import DataflowOp

__all__ = ["MultiplyPath"]


class MultiplyPath(wiring.Component):
    """FMUL, IMUL and IDIVR around one signed 25 x 25-bit multiplier.

    ============  ==========================================================================
    operation     ``o``
    ============  ==========================================================================
    ``FMUL``      a * b in fp32 (:mod:`headrace.dataflow.fp`)
    ``IMUL``      low 32 bits of a * b; both operands within signed 25 bits
    ``IDIVR``     sign(a) * ((|a| * b + 2**(sh - 1)) >> sh), |a| < 2**24, 0 <= b < 2**24,
                  1 <= sh <= 31; low 32 bits
    ============  ==========================================================================

    Two register stages and a combinational tail: ``o`` belongs to the operands of ``LATENCY`` cycles before. One
    operation a cycle. Operands outside the ranges above give an unspecified result.
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
        x, y = Signal(signed(25)), Signal(signed(25))
        is_fp, is_div = Signal(), Signal()
        exponent = Signal(signed(10))
        sign, is_nan, is_inf, is_zero = (Signal(name=n) for n in ("sign", "is_nan", "is_inf", "is_zero"))
        shift = Signal(5)

        negative = self.a[31]
        magnitude = Signal(24)
        m.d.comb += magnitude.eq(Mux(negative, -self.a[0:24], self.a[0:24]))
        fp_op, div_op = Signal(), Signal()
        m.d.comb += [fp_op.eq(self.op == DataflowOp.FMUL), div_op.eq(self.op == DataflowOp.IDIVR)]
        fa, fb = self.fa, self.fb
        m.d.sync += [
            x.eq(Mux(fp_op, fa.mantissa, Mux(div_op, magnitude, self.a[0:25]))),
            y.eq(Mux(fp_op, fb.mantissa, Mux(div_op, self.b[0:24], self.b[0:25]))),
            is_fp.eq(fp_op),
            is_div.eq(div_op),
            sign.eq(negative ^ (fp_op & self.b[31])),
            exponent.eq(fa.exponent + fb.exponent - 127),
            is_nan.eq(fa.nan | fb.nan | (fa.inf & fb.zero) | (fb.inf & fa.zero)),
            is_inf.eq(fa.inf | fb.inf),
            is_zero.eq(fa.zero | fb.zero),
            shift.eq(self.shift - 1),
        ]

        product = Signal(48)
        p_fp, p_div, p_sign, p_nan, p_inf, p_zero = (
            Signal(name=n) for n in ("p_fp", "p_div", "p_sign", "p_nan", "p_inf", "p_zero")
        )
        p_exponent = Signal(signed(10))
        p_shift = Signal(5)
        m.d.sync += [
            product.eq(x * y),
            p_fp.eq(is_fp),
            p_div.eq(is_div),
            p_sign.eq(sign),
            p_nan.eq(is_nan),
            p_inf.eq(is_inf),
            p_zero.eq(is_zero),
            p_exponent.eq(exponent),
            p_shift.eq(shift),
        ]

        # fp32: the product of two mantissas in [1, 2) lies in [1, 4); at most one position to normalise.
        high = product[47]
        normal = Signal(25)
        sticky = Signal()
        result_exponent = Signal(signed(11))
        fp_value = Signal(31)
        fp_increment = Signal()
        underflow, overflow = Signal(), Signal()
        m.d.comb += [
            normal.eq(Mux(high, product[23:48], product[22:47])),
            sticky.eq((product[0:22] != 0) | (high & product[22])),
            result_exponent.eq(p_exponent + high),
            underflow.eq(p_zero | (result_exponent < 0)),
            overflow.eq(p_inf | (result_exponent > 254)),
        ]
        with m.If(p_nan):
            m.d.comb += fp_value.eq(QUIET_NAN)
        with m.Elif(overflow):
            m.d.comb += fp_value.eq(INFINITY)
        with m.Elif(~underflow):
            # With an exponent of 0 the product lies just below the smallest normal number: IEEE 754 rounds it up to
            # that number only if all 24 bits are ones, which is when an increment carries into the exponent.
            m.d.comb += [
                fp_value.eq(Cat(normal[1:24], result_exponent[0:8])),
                fp_increment.eq((normal[0] & (sticky | normal[1])) | (result_exponent == 0)),
            ]

        # Division: dropping sh bits and adding the last one dropped rounds halves up, on the magnitude.
        quotient = Signal(48)
        m.d.comb += [
            quotient.eq(product >> p_shift),
            self.o.fp.eq(p_fp),
            self.o.sign.eq(Mux(p_fp, p_sign & ~p_nan, p_sign & p_div)),
            self.o.value.eq(
                Mux(p_fp, Cat(fp_value, Const(0, 1)), Mux(p_div, quotient[1:33], product[0:32])),
            ),
            self.o.increment.eq(Mux(p_fp, fp_increment, p_div & quotient[0])),
        ]
        return m
