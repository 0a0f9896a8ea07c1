"""Functions on streams that take several lane operations."""

from __future__ import annotations

from headrace.isa import DataflowOp
from headrace_host.kernels.trace import Stream, unary


def select(mask: Stream, a: Stream, b: Stream | int) -> Stream:
    """a where the mask (-1 or 0, as comparisons give) is set, else b: int32; fp32 streams pass as their bits."""
    if isinstance(b, int):
        return (a & mask) if b == 0 else (((a ^ b) & mask) ^ b)
    mixed = ((a.as_int() ^ b.as_int()) & mask) ^ b.as_int()
    return mixed.as_float() if a.is_float else mixed


def recip(a: Stream, *, steps: int = 1) -> Stream:
    """1 / a: the machine's first approximation, then Newton steps t (2 - a t)."""
    t = unary("recip", DataflowOp.FRCP, a, wants_float=True, gives_float=True)
    for _ in range(steps):
        t = t * (2 - a * t)
    return t


def rsqrt(a: Stream, *, steps: int = 1) -> Stream:
    """1 / sqrt(a): the machine's first approximation, then Newton steps t (1.5 - 0.5 a t t)."""
    t = unary("rsqrt", DataflowOp.FRSQ, a, wants_float=True, gives_float=True)
    for _ in range(steps):
        t = t * (1.5 - (a * 0.5) * t * t)
    return t


def exp2(a: Stream) -> Stream:
    """2^a, interpolated between eighths, of a rounded to 11 fraction bits."""
    fixed = (a * 2048.0).to_int()
    return unary("exp2", DataflowOp.EXP2, fixed, wants_float=False, gives_float=True)
