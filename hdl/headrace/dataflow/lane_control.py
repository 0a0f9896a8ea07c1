"""What all lanes of a column do in each stage, decoded once."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.fp import Unpacked, Unrounded
from headrace.isa import CONTEXT_FIELDS, DataflowOp

__all__ = ["LaneControl", "LaneHalf", "LaneStages"]

# Every code a context can hold, also those without an operation.
_OP_BITS = next(f.width for f in CONTEXT_FIELDS if f.name == "op")

# Control of every stage of a lane; the number is the stage, which is the age of the operation in cycles.
LaneStages = wiring.Signature(
    {
        "op_0": Out(_OP_BITS),
        "shift_0": Out(5),
        "add_0": Out(1),  # an operation of the adding half
        "multiply_0": Out(1),  # FMUL, IMUL, IDIVR
        "add_1": Out(1),
        "multiply_1": Out(1),
        "add_2": Out(1),
        "multiply_2": Out(1),
        "normalise_2": Out(1),  # FADD, FSUB, I2F
        "reverse_2": Out(1),  # ISHL
        "round_2": Out(1),  # F2I, F2IC
        "product_2": Out(1),  # FMUL
        "divide_2": Out(1),  # IDIVR
        "shift_2": Out(5),
        "en_3": Out(1),
        "fp_3": Out(1),  # the result is an fp32 number to round
        "clamp_3": Out(1),  # F2IC
    }
)

# Ports of the adding and of the multiplying half of a lane; fa, fb: a and b unpacked.
LaneHalf = wiring.Signature(
    {
        "control": In(LaneStages),
        "a": In(32),
        "b": In(32),
        "fa": In(Unpacked),
        "fb": In(Unpacked),
        "o": Out(Unrounded),
    }
)


class LaneControl(wiring.Component):
    """Decodes the operation of stage 0 and carries what the later stages need. Without `en` all stages idle."""

    def __init__(self) -> None:
        super().__init__({"en": In(1), "op": In(_OP_BITS), "shift": In(5), "o": Out(LaneStages)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        o = self.o
        product = self._among(DataflowOp.FMUL, DataflowOp.IMUL, DataflowOp.IDIVR)
        m.d.comb += [
            o.op_0.eq(self.op),
            o.shift_0.eq(self.shift),
            o.add_0.eq(self.en & ~product),
            o.multiply_0.eq(self.en & product),
        ]
        decoded = {
            "normalise_2": self._among(DataflowOp.FADD, DataflowOp.FSUB, DataflowOp.I2F),
            "reverse_2": self._among(DataflowOp.ISHL),
            "round_2": self._among(DataflowOp.F2I, DataflowOp.F2IC),
            "product_2": self._among(DataflowOp.FMUL),
            "divide_2": self._among(DataflowOp.IDIVR),
            "shift_2": self.shift,
            "clamp_3": self._among(DataflowOp.F2IC),
        }
        delayed = {}
        for name, value in decoded.items():
            for stage in range(1, int(name[-1])):
                following = Signal(len(value), name=f"{name[:-2]}_{stage}")
                m.d.sync += following.eq(value)
                value = following
            delayed[name] = value
        m.d.sync += [
            o.add_1.eq(o.add_0),
            o.multiply_1.eq(o.multiply_0),
            o.add_2.eq(o.add_1),
            o.multiply_2.eq(o.multiply_1),
            o.en_3.eq(o.add_2 | o.multiply_2),
            o.fp_3.eq(o.normalise_2 | o.product_2),
            *(getattr(o, name).eq(value) for name, value in delayed.items()),
        ]
        return m

    def _among(self, *ops: DataflowOp) -> Any:
        flags = [self.op == op for op in ops]
        result = flags[0]
        for flag in flags[1:]:
            result = result | flag
        return result
