"""The operations of a dataflow lane on int32 arrays of 32-bit patterns."""

from typing import assert_never

import numpy as np

from headrace.isa import DataflowOp

from . import fp

__all__ = ["lane_op"]


def _low32(wide: np.ndarray) -> np.ndarray:
    return wide.astype(np.uint32).view(np.int32)


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int64)


def _divide_round(a: np.ndarray, b: np.ndarray, shift: int) -> np.ndarray:
    magnitude = (np.abs(_wide(a)) * _wide(b) + (1 << shift >> 1)) >> shift
    return _low32(np.where(a < 0, -magnitude, magnitude))


def _clamped(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    value, low = fp.to_int(a), (b << np.int32(16)) >> np.int32(16)
    return np.where(value < low, low, np.minimum(value, b >> np.int32(16)))


def lane_op(op: DataflowOp, a: np.ndarray, b: np.ndarray, shift: int) -> np.ndarray:
    """Results (int32) of `op` on operands (int32, broadcast); operands outside an operation's domain: undefined."""
    match op:
        case DataflowOp.PASS:
            return a
        case DataflowOp.IADD:
            return a + b
        case DataflowOp.ISUB:
            return a - b
        case DataflowOp.IMUL:
            return a * b
        case DataflowOp.IMIN:
            return np.minimum(a, b)
        case DataflowOp.IMAX:
            return np.maximum(a, b)
        case DataflowOp.ISHR:
            return _low32((_wide(a) + _wide(b)) >> shift)
        case DataflowOp.IDIVR:
            return _divide_round(a, b, shift)
        case DataflowOp.I2F:
            return fp.from_int(a)
        case DataflowOp.F2I:
            return fp.to_int(a)
        case DataflowOp.F2IC:
            return _clamped(a, b)
        case DataflowOp.FADD:
            return fp.add(a, b)
        case DataflowOp.FSUB:
            return fp.subtract(a, b)
        case DataflowOp.FMUL:
            return fp.multiply(a, b)
        case DataflowOp.FMIN:
            return fp.minimum(a, b)
        case DataflowOp.FMAX:
            return fp.maximum(a, b)
        case DataflowOp.IAND:
            return a & b
        case DataflowOp.IOR:
            return a | b
        case DataflowOp.IXOR:
            return a ^ b
        case DataflowOp.ISHL:
            return _low32(_wide(a) << (_wide(b) & 31))
        case DataflowOp.FRCP:
            return fp.reciprocal(a)
        case DataflowOp.ILT:
            return -(a < b).astype(np.int32)
        case DataflowOp.FLT:
            return -fp.less(a, b).astype(np.int32)
        case DataflowOp.EXP2:
            return fp.exponential(a)
        case DataflowOp.FRSQ:
            return fp.reciprocal_root(a)
        case _:
            assert_never(op)
