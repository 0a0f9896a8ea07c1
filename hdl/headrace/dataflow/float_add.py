"""A pipelined fp32 adder."""

from types import SimpleNamespace

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.fp import INFINITY, QUIET_NAN, Unpacked, bundle, copy, unpack

__all__ = ["FloatAdd"]

_FAR = 31
"""An alignment shift from which nothing but the sticky bit of a 24-bit mantissa is left; a mask of the shifter."""

# What the later stages must know about an addition.
_Tail = wiring.Signature(
    {
        "subtract": Out(1),  # mantissas are subtracted
        "sign": Out(1),
        "nan": Out(1),
        "inf": Out(1),
        "exponent": Out(8),  # biased, of the larger operand
    }
)


class FloatAdd(wiring.Component):
    """Cell: o = a + b in fp32, by the rules of :mod:`headrace.dataflow.fp`.

    ::

        stage 0   order by magnitude, exponent difference
        stage 1   shift the smaller right, collect the bits lost, add to or subtract from the larger
        stage 2   round, or shift left: a sum that loses more than one leading bit is exact

    `o` belongs to the operands of `LATENCY` cycles before, of which bit s of `en` must have been 1 in their stage s;
    one addition a cycle. A stage whose `en` is 0 rests and keeps its registers.
    """

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__({"en": In(self.LATENCY), "a": In(32), "b": In(32), "o": Out(32)})

    @property
    def cell_key(self) -> tuple[()]:
        """Parameters that tell one adder module from another: none."""
        return ()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        larger, smaller = Signal(24, reset_less=True), Signal(24, reset_less=True)
        distance, tail = Signal(5, reset_less=True), bundle(_Tail, "tail")
        with m.If(self.en[0]):
            self._order(m, larger, smaller, distance, tail)

        shifted, aligned, base = Signal(55), Signal(27), Signal(27)
        total, tail_2 = Signal(28, reset_less=True), bundle(_Tail, "tail_2")
        with m.If(self.en[1]):
            m.d.comb += [
                shifted.eq(Cat(Const(0, _FAR), smaller) >> distance),
                aligned.eq(Cat(shifted[0:29] != 0, shifted[29:55])),
                base.eq(Cat(Const(0, 3), larger)),
            ]
            m.d.sync += [total.eq(Mux(tail.subtract, base - aligned, base + aligned)), *copy(tail_2, tail)]

        result = Signal(32, reset_less=True)
        m.d.comb += self.o.eq(result)
        with m.If(self.en[2]):
            m.d.sync += result.eq(self._finish(m, total, tail_2))
        return m

    def _order(self, m: Module, larger: Signal, smaller: Signal, distance: Signal, tail: SimpleNamespace) -> None:
        fa, fb = Unpacked.create(path=("fa",)), Unpacked.create(path=("fb",))
        unpack(m, self.a, fa)
        unpack(m, self.b, fb)
        swap, subtract, exponent, gap = Signal(), Signal(), Signal(8), Signal(8)
        m.d.comb += [
            swap.eq(self.a[0:31] < self.b[0:31]),
            subtract.eq(fa.sign ^ fb.sign),
            exponent.eq(Mux(swap, fb.exponent, fa.exponent)),
            gap.eq(exponent - Mux(swap, fa.exponent, fb.exponent)),
        ]
        m.d.sync += [
            larger.eq(Mux(swap, fb.mantissa, fa.mantissa)),
            smaller.eq(Mux(swap, fa.mantissa, fb.mantissa)),
            distance.eq(Mux(gap > _FAR, _FAR, gap)),
            tail.subtract.eq(subtract),
            tail.sign.eq(Mux(swap, fb.sign, fa.sign)),
            tail.exponent.eq(exponent),
            tail.nan.eq(fa.nan | fb.nan | (fa.inf & fb.inf & subtract)),
            tail.inf.eq(fa.inf | fb.inf),
        ]

    def _finish(self, m: Module, total: Signal, tail: SimpleNamespace) -> Signal:
        """The sum from the mantissas' sum, whose bit 26 has the weight of the larger operand's leading bit."""
        result = Signal(32)
        magnitude, left_alone = Signal(31), Signal()
        rounded, overflow = self._rounded(m, total, tail.exponent)
        normal, zero = self._normalised(m, total, tail.exponent)
        m.d.comb += left_alone.eq(total[25:28] != 0)  # the leading bit moved by one place at most
        with m.If(tail.nan):
            m.d.comb += result.eq(QUIET_NAN)
        with m.Else():
            with m.If(tail.inf | (left_alone & overflow)):
                m.d.comb += magnitude.eq(INFINITY)
            with m.Elif(left_alone):
                m.d.comb += magnitude.eq(Mux(rounded[23:31] == 0, 0, rounded))
            with m.Elif(~zero):
                m.d.comb += magnitude.eq(normal)
            # Only a difference of equals is +0 whatever the signs were.
            m.d.comb += result.eq(Cat(magnitude, tail.sign & ~(tail.subtract & (total == 0))))
        return result

    def _rounded(self, m: Module, total: Signal, exponent: Signal) -> tuple[Signal, Signal]:
        """Packed magnitude with the leading bit at 25, 26 or 27, and whether it overflows before it is rounded.

        A result in whose exponent 0 is left is below the smallest normal number and exact: it counts as zero.
        """
        fraction, lost, sticky, top = Signal(23), Signal(), Signal(), Signal(9)
        with m.If(total[27]):
            m.d.comb += [fraction.eq(total[4:27]), lost.eq(total[3]), sticky.eq(total[0:3] != 0), top.eq(exponent + 1)]
        with m.Elif(total[26]):
            m.d.comb += [fraction.eq(total[3:26]), lost.eq(total[2]), sticky.eq(total[0:2] != 0), top.eq(exponent)]
        with m.Else():
            m.d.comb += [fraction.eq(total[2:25]), lost.eq(total[1]), sticky.eq(total[0]), top.eq(exponent - 1)]
        rounded = Signal(31)
        m.d.comb += rounded.eq(Cat(fraction, top[0:8]) + (lost & (sticky | fraction[0])))
        return rounded, top >= 255

    def _normalised(self, m: Module, total: Signal, exponent: Signal) -> tuple[Signal, Value]:
        """Packed magnitude with the leading bit below 25, which is exact, and whether it counts as zero."""
        normal = Signal(26, name="normal_0")
        m.d.comb += normal.eq(total[0:26])
        empty: list[Signal] = []
        for bit in reversed(range(5)):
            width = 1 << bit
            step, none = Signal(26, name=f"normal_{width}"), Signal(name=f"empty_{width}")
            m.d.comb += [
                none.eq(normal[26 - width : 26] == 0),
                step.eq(Mux(none, Cat(Const(0, width), normal[0 : 26 - width]), normal)),
            ]
            empty.insert(0, none)
            normal = step
        left = Signal(signed(10))
        m.d.comb += left.eq(exponent - 1 - Cat(empty))
        packed = Signal(31)
        m.d.comb += packed.eq(Cat(normal[2:25], left[0:8]))
        return packed, ~normal[25] | (left <= 0)
