"""Lane operations in numpy and Python integers, written from the specification of the operations."""

import math

import numpy as np

from headrace.isa import DataflowOp

QUIET_NAN = 0x7FC00000


def flush(bits: np.ndarray) -> np.ndarray:
    """Subnormals to zeros of the same sign."""
    return np.where((bits & 0x7F800000) == 0, bits & 0x80000000, bits).astype(np.uint32)


def f32(bits: np.ndarray) -> np.ndarray:
    return flush(np.asarray(bits, np.uint32)).view(np.float32)


def to_bits(values: np.ndarray) -> np.ndarray:
    bits = flush(np.asarray(values, np.float32).view(np.uint32))
    return np.where(np.isnan(values), np.uint32(QUIET_NAN), bits).astype(np.uint32)


def float_add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """fp32 a + b on 32-bit patterns."""
    with np.errstate(all="ignore"):
        return to_bits(f32(a) + f32(b))


def tree(values: list[int]) -> int:
    """Pairwise fp32 sum of a power of two of patterns."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return int(float_add(np.array([tree(values[:half])]), np.array([tree(values[half:])]))[0])


def row_sum(elements: list[int]) -> int:
    """fp32 sum of patterns: trees of 32, block b into partial b mod 8, a tree of the partials."""
    partials = [0] * 8
    for number, start in enumerate(range(0, len(elements), 32)):
        block = elements[start : start + 32]
        total = tree(block + [0] * (32 - len(block)))
        partials[number % 8] = int(float_add(np.array([partials[number % 8]]), np.array([total]))[0])
    return tree(partials)


def ordered(bits: int) -> int:
    """Integer that orders patterns by sign and magnitude, -0 below +0."""
    return bits if bits < 1 << 31 else -1 - (bits & 0x7FFFFFFF)


def _signed(bits: np.ndarray) -> np.ndarray:
    return np.asarray(bits, np.uint32).view(np.int32).astype(np.int64)


def _signed25(bits: np.ndarray) -> np.ndarray:
    value = np.asarray(bits, np.int64) & 0x1FFFFFF
    return np.where(value >> 24, value - (1 << 25), value)


def _select(a: np.ndarray, b: np.ndarray, larger: bool) -> np.ndarray:
    x, y = flush(a), flush(b)
    key = [np.where(_signed(v) < 0, ~(v & 0x7FFFFFFF).astype(np.int64), v.astype(np.int64)) for v in (x, y)]
    out = np.where((key[1] > key[0]) if larger else (key[1] < key[0]), y, x)
    return np.where(np.isnan(f32(a)) | np.isnan(f32(b)), np.uint32(QUIET_NAN), out)


def _to_int(a: np.ndarray) -> np.ndarray:
    value = np.rint(np.where(np.isnan(f32(a)), 0.0, f32(a).astype(np.float64)))
    return np.clip(value, -(2**31), 2**31 - 1).astype(np.int64)


def _lines(table: list[int], fraction: np.ndarray, bits: int) -> np.ndarray:
    """Between the entries of a table (in 65,536ths) at 23-bit fractions, `bits` of which choose, the next 8 weigh."""
    entries = np.array(table, np.int64)
    index, rest = fraction >> (23 - bits), fraction >> (15 - bits) & 255
    return (entries[index] * (256 - rest) + entries[index + 1] * rest) / 2.0**24


def _reciprocal(bits: np.ndarray) -> np.ndarray:
    """sign * line / m * 2^-e for a = sign * m * 2^e: 32 intervals."""
    exponent = (bits >> 23 & 0xFF).astype(np.int64)
    table = [round(65536 * 32 / (32 + i)) for i in range(33)]
    value = _lines(table, (bits & 0x7FFFFF).astype(np.int64), 5) * 2.0 ** (127 - exponent)
    value = np.where(value < 2.0**-126, 0.0, value)
    value = np.where(exponent == 0, np.inf, np.where(exponent == 255, 0.0, value))
    out = value.astype(np.float32).view(np.uint32) | bits & 0x80000000
    return np.where(np.isnan(bits.view(np.float32)), np.uint32(QUIET_NAN), out)


def _exponential(bits: np.ndarray) -> np.ndarray:
    """F * 2^(n - 16), the mantissa F between neighbours of the table, n whole and i, r the fraction."""
    table = np.array([256, 279, 304, 332, 362, 395, 431, 470, 512], np.int64)
    value = _signed(bits)
    n, i, r = value >> 11, value >> 8 & 7, value & 255
    mantissa = table[i] * 256 + (table[i + 1] - table[i]) * r
    result = mantissa.astype(np.float64) * 2.0 ** (np.clip(n, -150, 150) - 16)  # exact
    result = np.where(n < -126, 0.0, np.where(n > 127, np.inf, result))
    return result.astype(np.float32).view(np.uint32)


def _reciprocal_root(bits: np.ndarray) -> np.ndarray:
    """Line * 2^-floor(e / 2), one table of 16 intervals for even e, one for odd."""
    even, odd = ([round(65536 / math.sqrt(scale * (16 + i) / 16)) for i in range(17)] for scale in (1, 2))
    e, fraction = (bits >> 23 & 0xFF).astype(np.int64) - 127, (bits & 0x7FFFFF).astype(np.int64)
    value = np.where(e % 2 == 0, _lines(even, fraction, 4), _lines(odd, fraction, 4)) * 2.0 ** -(e // 2)
    value = np.where(f32(bits) == 0, np.inf, np.where(bits == 0x7F800000, 0.0, value))
    invalid = (f32(bits) < 0) | np.isnan(f32(bits))
    return np.where(invalid, np.uint32(QUIET_NAN), value.astype(np.float32).view(np.uint32))


def _half(bits: np.ndarray) -> np.ndarray:
    return np.asarray(bits, np.uint32).astype(np.uint16).view(np.int16).astype(np.int64)


def lane_op(op: DataflowOp, a: np.ndarray, b: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """32-bit results of `op` on arrays of 32-bit patterns."""
    a, b, shift = np.asarray(a, np.uint32), np.asarray(b, np.uint32), np.asarray(shift, np.int64)
    with np.errstate(all="ignore"):
        match op:
            case DataflowOp.PASS:
                out = a
            case DataflowOp.IADD:
                out = _signed(a) + _signed(b)
            case DataflowOp.ISUB:
                out = _signed(a) - _signed(b)
            case DataflowOp.IMUL:
                out = _signed25(a) * _signed25(b)
            case DataflowOp.IMIN:
                out = np.minimum(_signed(a), _signed(b))
            case DataflowOp.IMAX:
                out = np.maximum(_signed(a), _signed(b))
            case DataflowOp.ISHR:
                out = (_signed(a) + _signed(b)) >> shift
            case DataflowOp.IDIVR:
                out = ((np.abs(_signed(a)) * b.astype(np.int64)) + (1 << (shift - 1))) >> shift
                out = np.where(_signed(a) < 0, -out, out)
            case DataflowOp.I2F:
                return to_bits(_signed(a).astype(np.float32))
            case DataflowOp.F2I:
                out = _to_int(a)
            case DataflowOp.F2IC:
                value, low = _to_int(a), _half(b & 0xFFFF)
                out = np.where(value < low, low, np.minimum(value, _half(b >> 16)))
            case DataflowOp.FADD:
                return float_add(a, b)
            case DataflowOp.FSUB:
                return to_bits(f32(a) - f32(b))
            case DataflowOp.FMUL:
                return to_bits(f32(a) * f32(b))
            case DataflowOp.FMIN:
                return _select(a, b, larger=False)
            case DataflowOp.FMAX:
                return _select(a, b, larger=True)
            case DataflowOp.IAND:
                out = a & b
            case DataflowOp.IOR:
                out = a | b
            case DataflowOp.IXOR:
                out = a ^ b
            case DataflowOp.ISHL:
                out = a.astype(np.uint64) << (b & 31).astype(np.uint64)
            case DataflowOp.FRCP:
                return _reciprocal(a)
            case DataflowOp.ILT:
                out = -(_signed(a) < _signed(b)).astype(np.int64)
            case DataflowOp.FLT:
                out = -(f32(a) < f32(b)).astype(np.int64)
            case DataflowOp.EXP2:
                return _exponential(a)
            case DataflowOp.FRSQ:
                return _reciprocal_root(a)
    return (out & 0xFFFFFFFF).astype(np.uint32)
