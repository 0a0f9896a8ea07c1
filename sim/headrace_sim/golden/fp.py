"""fp32 on 32-bit patterns (int32 arrays): round to nearest even, subnormals are zeros of their sign, one quiet NaN."""

import numpy as np

__all__ = [
    "QUIET_NAN",
    "add",
    "exponential",
    "from_int",
    "less",
    "maximum",
    "minimum",
    "multiply",
    "order",
    "reciprocal",
    "reciprocal_root",
    "row_sum",
    "subtract",
    "to_int",
]

QUIET_NAN = 0x7FC00000
_EXPONENT = np.int32(0x7F800000)
_SIGN = np.int32(-0x80000000)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_POWERS = np.rint(256 * 2.0 ** (np.arange(9) / 8)).astype(np.int64)  # of 0, 1/8 .. 1, in 256ths
_RECIPROCALS = np.rint(65536 / (1 + np.arange(33) / 32)).astype(np.int64)  # of 1, 1 + 1/32 .. 2, in 65,536ths
_STEPS = 1 + np.arange(17) / 16
_ROOTS = np.rint(65536 / np.sqrt([_STEPS, 2 * _STEPS])).astype(np.int64)  # reciprocal, alike: exponent even, odd


def _flush(bits: np.ndarray) -> np.ndarray:
    subnormal = (bits & _EXPONENT) == 0
    return np.where(subnormal, bits & _SIGN, bits) if subnormal.any() else bits


def _values(bits: np.ndarray) -> np.ndarray:
    return _flush(bits).view(np.float32)


def _bits(values: np.ndarray) -> np.ndarray:
    bits, nan = _flush(values.view(np.int32)), np.isnan(values)
    return np.where(nan, np.int32(QUIET_NAN), bits) if nan.any() else bits


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b."""
    with np.errstate(all="ignore"):
        return _bits(_values(a) + _values(b))


def subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b."""
    with np.errstate(all="ignore"):
        return _bits(_values(a) - _values(b))


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a * b."""
    with np.errstate(all="ignore"):
        return _bits(_values(a) * _values(b))


def _pick(a: np.ndarray, b: np.ndarray, choose: np.ufunc) -> np.ndarray:
    picked = order(choose(order(_flush(a)), order(_flush(b))))
    nan = ((a & _MAGNITUDE) > _EXPONENT) | ((b & _MAGNITUDE) > _EXPONENT)
    return np.where(nan, np.int32(QUIET_NAN), picked)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smaller, -0 below +0; NaN if either is."""
    return _pick(a, b, np.minimum)


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The larger, -0 below +0; NaN if either is."""
    return _pick(a, b, np.maximum)


def less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether a < b."""
    with np.errstate(all="ignore"):
        return _values(a) < _values(b)


def from_int(a: np.ndarray) -> np.ndarray:
    """int32 to fp32."""
    return a.astype(np.float32).view(np.int32)


def to_int(a: np.ndarray) -> np.ndarray:
    """fp32 to int32, halves to even, saturated, NaN to 0."""
    with np.errstate(all="ignore"):
        values = np.rint(_values(a)).astype(np.float64)
    clipped = np.clip(np.where(np.isnan(values), 0.0, values), -(2.0**31), 2.0**31 - 1)
    return clipped.astype(np.int64).astype(np.int32)


def _between(table: np.ndarray, bits: np.ndarray, index_bits: int) -> np.ndarray:
    """Values, in 2^-24ths, of a table [n, 2^index_bits + 1] at the fraction of `bits`; the next 8 bits interpolate."""
    index = bits >> (23 - index_bits) & ((1 << index_bits) - 1)
    rest = (bits >> (15 - index_bits) & 255).astype(np.int64)
    left = np.take_along_axis(table, index.reshape(1, -1), axis=1).reshape(index.shape)
    right = np.take_along_axis(table, index.reshape(1, -1) + 1, axis=1).reshape(index.shape)
    return left * 256 - (left - right) * rest


def reciprocal(a: np.ndarray) -> np.ndarray:
    """1 / a from 32 intervals of the fraction, linear between; no rounding."""
    values = _values(a)
    usable = np.isfinite(values) & (values != 0)
    exponent = np.frexp(np.where(usable, values, 1))[1] - 1
    magnitude = np.ldexp(_between(_RECIPROCALS[None], a, 5) / 2.0**24, -exponent)
    special = np.where(values == 0, np.inf, np.where(np.isinf(values), 0.0, np.nan))
    with np.errstate(under="ignore", invalid="ignore"):
        return _bits(np.copysign(np.where(usable, magnitude, special), values).astype(np.float32))


def exponential(a: np.ndarray) -> np.ndarray:
    """2^(a / 2^11) of int32, interpolated between eighths; 0 and infinity beyond the normal numbers."""
    eighth, rest = a >> 8 & 7, (a & 255).astype(np.int64)
    mantissa = _POWERS[eighth] * 256 + (_POWERS[eighth + 1] - _POWERS[eighth]) * rest
    whole = np.clip(a >> 11, -200, 200)  # far beyond fp32 either way, within a double
    with np.errstate(over="ignore", under="ignore"):
        return _bits(np.ldexp(mantissa / 65536, whole).astype(np.float32))


def reciprocal_root(a: np.ndarray) -> np.ndarray:
    """1 / sqrt(a) from 16 intervals of the fraction for even and odd exponents, linear between; no rounding."""
    values = _values(a)
    usable = np.isfinite(values) & (values > 0)
    exponent = np.frexp(np.where(usable, values, 1))[1] - 1
    roots = np.where(exponent & 1, _between(_ROOTS[1:], a, 4), _between(_ROOTS[:1], a, 4))
    result = np.ldexp(roots / 2.0**24, -(exponent >> 1))
    special = np.where(values == 0, np.inf, np.where(values == np.inf, 0.0, np.nan))
    return _bits(np.where(usable, result, special).astype(np.float32))


def order(bits: np.ndarray) -> np.ndarray:
    """Its own inverse: integers in the order of sign and magnitude, -0 before +0."""
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits)


def row_sum(elements: np.ndarray) -> np.ndarray:
    """Sums of the last axis: a pairwise tree in each aligned 32, block b added to partial b mod 8, a tree over these.

    Elements missing in the last block, and partials at first, are +0.
    """
    *rows, size = elements.shape
    count = -(-size // 32)
    padded = np.zeros((*rows, count * 32), np.int32)
    padded[..., :size] = elements
    blocks = _tree(padded.reshape(*rows, count, 32))
    partials = np.zeros((*rows, 8), np.int32)
    for first in range(0, count, 8):
        some = blocks[..., first : first + 8]
        width = some.shape[-1]
        partials[..., :width] = add(partials[..., :width], some)
    return _tree(partials)


def _tree(bits: np.ndarray) -> np.ndarray:
    while bits.shape[-1] > 1:
        bits = add(bits[..., 0::2], bits[..., 1::2])
    return bits[..., 0]
