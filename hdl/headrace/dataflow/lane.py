"""One lane of a dataflow column: an fp32 and int32 ALU, one operation a cycle."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.add import AddPath
from headrace.dataflow.fp import Unrounded, unpack
from headrace.dataflow.multiply import MultiplyPath
from headrace.isa import DataflowOp

__all__ = ["Lane"]


class Lane(wiring.Component):
    """An ALU of fixed latency.

    ``o`` is the result of the operation presented ``LATENCY`` cycles before; one operation is accepted each cycle and
    nothing stalls. fp32 rules are those of :mod:`headrace.dataflow.fp`; integers are two's complement and wrap.

    ==========  ================================================================================
    operation   ``o``
    ==========  ================================================================================
    ``PASS``    a
    ``IADD``    a + b
    ``ISUB``    a - b
    ``IMUL``    low 32 bits of a * b, both within signed 25 bits
    ``IMIN``    smaller, ``IMAX`` larger of a and b as signed integers
    ``ISHR``    (a + b) >> shift, rounded down, the sum not wrapped before the shift
    ``IDIVR``   sign(a) * ((|a| * b + 2**(shift - 1)) >> shift); |a| < 2**24, 0 <= b < 2**24, shift >= 1
    ``I2F``     a as fp32
    ``F2I``     fp32 a as an integer, halves to even, saturated to 32 bits, NaN to 0
    ``F2IC``    as F2I, then clamped to [b[0:16], b[16:32]], both signed
    ``FADD``    a + b, ``FSUB`` a - b, ``FMUL`` a * b
    ``FMIN``    smaller, ``FMAX`` larger of a and b, with -0 < +0; NaN if either is NaN
    ==========  ================================================================================
    """

    LATENCY = 4

    def __init__(self) -> None:
        super().__init__({"op": In(DataflowOp), "a": In(32), "b": In(32), "shift": In(5), "o": Out(32)})

    @property
    def cell_key(self) -> tuple[()]:
        """Parameters that tell one lane module from another: none."""
        return ()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.add = add = AddPath()
        m.submodules.multiply = multiply = MultiplyPath()
        fa = unpack(m, "fa", self.a)
        fb = unpack(m, "fb", self.b)
        for path in (add, multiply):
            m.d.comb += [
                path.op.eq(self.op),
                path.a.eq(self.a),
                path.b.eq(self.b),
                path.shift.eq(self.shift),
                path.fa.eq(fa),
                path.fb.eq(fb),
            ]

        is_product = Signal()
        product, clamp, limits = is_product, self.op == DataflowOp.F2IC, self.b
        m.d.comb += is_product.eq(
            (self.op == DataflowOp.FMUL) | (self.op == DataflowOp.IMUL) | (self.op == DataflowOp.IDIVR)
        )
        for stage in range(AddPath.LATENCY):
            product_next, clamp_next = Signal(name=f"product_{stage}"), Signal(name=f"clamp_{stage}")
            limits_next = Signal(32, name=f"limits_{stage}")
            m.d.sync += [product_next.eq(product), clamp_next.eq(clamp), limits_next.eq(limits)]
            product, clamp, limits = product_next, clamp_next, limits_next

        chosen = Signal(Unrounded)
        chosen_clamp, chosen_limits = Signal(), Signal(32)
        m.d.sync += [
            chosen.eq(Mux(product, multiply.o.as_value(), add.o.as_value())),
            chosen_clamp.eq(clamp),
            chosen_limits.eq(limits),
        ]
        self._round(m, chosen, chosen_clamp, chosen_limits)
        return m

    def _round(self, m: Module, chosen: Signal, clamp: Signal, limits: Signal) -> None:
        """Last stage: the rounding increment, the sign, the clamp."""
        negate = Signal()
        total = Signal(signed(32))
        low, high = Signal(signed(16)), Signal(signed(16))
        magnitude = Signal(31)
        m.d.comb += [
            negate.eq(chosen.sign & ~chosen.fp),
            total.eq(Mux(negate, ~chosen.value, chosen.value) + (chosen.increment ^ negate)),
            magnitude.eq(Mux(total[23:31] == 0, 0, total[0:31])),
            low.eq(limits[0:16]),
            high.eq(limits[16:32]),
        ]
        with m.If(chosen.fp):
            m.d.sync += self.o.eq(Cat(magnitude, chosen.sign))
        with m.Elif(clamp & (total < low)):
            m.d.sync += self.o.eq(low)
        with m.Elif(clamp & (total > high)):
            m.d.sync += self.o.eq(high)
        with m.Else():
            m.d.sync += self.o.eq(total)
