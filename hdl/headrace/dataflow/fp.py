"""fp32 as the dataflow array computes it, and the value a lane carries into its last stage.

Arithmetic is IEEE 754 binary32, round to nearest, ties to even, except that

* a subnormal operand counts as a zero of the same sign;
* a result that IEEE 754 would round to a subnormal becomes a zero of the same sign;
* every NaN result is the quiet NaN ``0x7FC00000``.
"""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

__all__ = ["INFINITY", "QUIET_NAN", "Unpacked", "Unrounded", "flushed", "unpack"]

QUIET_NAN = 0x7FC0_0000
INFINITY = 0x7F80_0000


# An fp32 operand taken apart: (-1)**sign * mantissa * 2**(exponent - 150) unless inf or nan. The mantissa includes the
# hidden bit and is 0 for zero and subnormal operands, for which `zero` is set.
Unpacked = data.StructLayout({"mantissa": 24, "exponent": 8, "sign": 1, "zero": 1, "inf": 1, "nan": 1})

# A result before its last addition. fp = 1: value[0:31] is the packed exponent and fraction; adding `increment` rounds
# it, carrying into the exponent; an exponent of 0 afterwards means zero. fp = 0: the result is value + increment as
# 32 bits, negated if `sign`.
Unrounded = data.StructLayout({"value": 32, "increment": 1, "sign": 1, "fp": 1})


def unpack(m: Module, name: str, bits: Value) -> Any:
    """Take the 32-bit ``bits`` apart combinationally."""
    out = Signal(Unpacked, name=name)
    exponent = bits[23:31]
    ones = Signal(name=f"{name}_ones")
    m.d.comb += [
        ones.eq(exponent == 0xFF),
        out.zero.eq(exponent == 0),
        out.inf.eq(ones & (bits[0:23] == 0)),
        out.nan.eq(ones & (bits[0:23] != 0)),
        out.sign.eq(bits[31]),
        out.exponent.eq(exponent),
        out.mantissa.eq(Mux(out.zero, 0, Cat(bits[0:23], Const(1, 1)))),
    ]
    return out


def flushed(bits: Value, operand: Any) -> Value:
    """``bits`` with a subnormal replaced by a zero of the same sign; ``operand`` is ``bits`` unpacked."""
    return Mux(operand.zero, Cat(Const(0, 31), bits[31]), bits)
