"""Functions on streams that take several lane operations."""

from __future__ import annotations

import numpy as np

from headrace.isa import DataflowOp
from headrace_host.kernels.trace import Stream, binary, unary

EXP_SCALE = np.float32(np.float32(np.log2(np.e)) * np.float32(2048))
"""EXP2 takes powers of two with 11 fraction bits."""


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
    return _power("exp2", a, 2048.0)


def exp(a: Stream, *, factor: float = 1.0) -> Stream:
    """e^(factor a), as `exp2`: factor log2(e) is rounded to fp32."""
    return _power("exp", a, float(np.float32(factor) * EXP_SCALE))


def _power(name: str, a: Stream, scale: float) -> Stream:
    return unary(name, DataflowOp.EXP2, (a * scale).to_int(), wants_float=False, gives_float=True)


def to_codes(a: Stream, low: int, high: int) -> Stream:
    """``a`` rounded half to even and clamped to ``low`` .. ``high``, which are int16."""
    limits = (low & 0xFFFF) | (high & 0xFFFF) << 16
    return binary("to_codes", DataflowOp.F2IC, a.as_int(), limits - (limits >> 31 << 32), floats=False)


def up_to_bf16(a: Stream) -> Stream:
    """``a``, not negative, rounded up to the next number of 16 bits."""
    return ((a.as_int() + 0xFFFF) & (-1 << 16)).as_float()
