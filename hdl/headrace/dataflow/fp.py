"""fp32 as the dataflow array computes it, and the value a lane carries into its last stage.

Arithmetic is IEEE 754 binary32, round to nearest, ties to even, except that

* a subnormal operand counts as a zero of the same sign;
* a result that IEEE 754 would round to a subnormal becomes a zero of the same sign;
* every NaN result is the quiet NaN `0x7FC00000`.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

__all__ = ["INFINITY", "QUIET_NAN", "Unpacked", "Unrounded", "bundle", "copy", "flushed", "signals", "unpack"]

QUIET_NAN = 0x7FC0_0000
INFINITY = 0x7F80_0000


# Bundles rather than structures: a compiled simulation handles separate signals faster than fields of one vector.

# An fp32 operand taken apart: (-1)**sign * mantissa * 2**(exponent - 150) unless inf or nan. The mantissa includes the
# hidden bit and is 0 for zero and subnormal operands, for which `zero` is set.
Unpacked = wiring.Signature(
    {"mantissa": Out(24), "exponent": Out(8), "sign": Out(1), "zero": Out(1), "inf": Out(1), "nan": Out(1)}
)

# A result before its last addition. fp32: value[0:31] is the packed exponent and fraction; adding `increment` rounds
# it, carrying into the exponent; an exponent of 0 afterwards means zero. Integer: the result is value + increment as
# 32 bits, negated if `sign`.
Unrounded = wiring.Signature({"value": Out(32), "increment": Out(1), "sign": Out(1)})


def unpack(m: Module, bits: Value, out: Any) -> None:
    """Take the 32-bit `bits` apart into `out`, an `Unpacked`, combinationally."""
    ones, fraction = Signal(), Signal()
    m.d.comb += [
        ones.eq(bits[23:31] == 0xFF),
        fraction.eq(bits[0:23] != 0),
        out.zero.eq(bits[23:31] == 0),
        out.inf.eq(ones & ~fraction),
        out.nan.eq(ones & fraction),
        out.sign.eq(bits[31]),
        out.exponent.eq(bits[23:31]),
        out.mantissa.eq(Mux(out.zero, 0, Cat(bits[0:23], Const(1, 1)))),
    ]


def bundle(signature: wiring.Signature, name: str) -> Any:
    """Signals of a signature, which keep their value in reset: data needs none."""
    return SimpleNamespace(
        **{
            key: Signal(member.shape, name=f"{name}_{key}", reset_less=True)
            for key, member in signature.members.items()
        }
    )


def signals(of: Any) -> list[Signal]:
    """Signals of a `bundle`."""
    return list(vars(of).values())


def copy(to: SimpleNamespace, source: Any) -> list[Any]:
    """Assignments of every signal of the bundle `to` from the field of the same name of `source`."""
    return [signal.eq(getattr(source, name)) for name, signal in vars(to).items()]


def flushed(bits: Value, operand: Any) -> Value:
    """`bits` with a subnormal replaced by a zero of the same sign; `operand` is `bits` unpacked."""
    return Mux(operand.zero, Cat(Const(0, 31), bits[31]), bits)
