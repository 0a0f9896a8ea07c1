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
    "reciprocal",
    "reciprocal_root",
    "subtract",
    "to_int",
]

QUIET_NAN = 0x7FC00000
_EXPONENT = np.int32(0x7F800000)
_SIGN = np.int32(-0x80000000)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_RECIPROCALS = np.array([241, 216, 195, 178, 164, 152, 141, 132], np.int32)  # of 1 + i/8 .., in 256ths
_POWERS = np.rint(256 * 2.0 ** (np.arange(9) / 8)).astype(np.int64)  # of 0, 1/8 .. 1, in 256ths
_MIDDLES = 1 + (np.arange(8) + 0.5) / 8
_ROOTS = np.rint(256 / np.sqrt([_MIDDLES, 2 * _MIDDLES]))  # reciprocal, in 256ths: exponent even, odd


def _flush(bits: np.ndarray) -> np.ndarray:
    return np.where((bits & _EXPONENT) == 0, bits & _SIGN, bits)


def _values(bits: np.ndarray) -> np.ndarray:
    return _flush(bits).view(np.float32)


def _bits(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.int32(QUIET_NAN), _flush(values.view(np.int32)))


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


def _order(bits: np.ndarray) -> np.ndarray:
    """Its own inverse: integers in the order of the fp32 numbers, -0 before +0."""
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits)


def _pick(a: np.ndarray, b: np.ndarray, choose: np.ufunc) -> np.ndarray:
    picked = _order(choose(_order(_flush(a)), _order(_flush(b))))
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


def reciprocal(a: np.ndarray) -> np.ndarray:
    """First approximation of 1 / a, from a table of the upper three fraction bits: 8 bits, no rounding."""
    sign, exponent = a & _SIGN, (a & _EXPONENT) >> 23
    # T / 256 * 2^-(exponent - 127) with T in 128 .. 255 is T / 128 * 2^(253 - exponent - 127)
    table = _RECIPROCALS[a >> 20 & 7]
    result = np.where(exponent < 253, (253 - exponent) << 23 | (table - 128) << 16, 0)
    result = np.where(exponent == 0, _EXPONENT, result) | sign
    nan = (a & _MAGNITUDE) > _EXPONENT
    return np.where(nan, np.int32(QUIET_NAN), result).astype(np.int32, copy=False)


def exponential(a: np.ndarray) -> np.ndarray:
    """2^(a / 2^11) of int32, interpolated between eighths; 0 and infinity beyond the normal numbers."""
    eighth, rest = a >> 8 & 7, (a & 255).astype(np.int64)
    mantissa = _POWERS[eighth] * 256 + (_POWERS[eighth + 1] - _POWERS[eighth]) * rest
    whole = np.clip(a >> 11, -200, 200)  # far beyond fp32 either way, within a double
    with np.errstate(over="ignore", under="ignore"):
        return _bits(np.ldexp(mantissa / 65536, whole).astype(np.float32))


def reciprocal_root(a: np.ndarray) -> np.ndarray:
    """First approximation of 1 / sqrt(a), from tables of the upper three fraction bits: 8 bits, no rounding."""
    values = _values(a)
    usable = np.isfinite(values) & (values > 0)
    half, above = np.frexp(np.where(usable, values, 1).astype(np.float64))  # half in 1/2 .. 1
    exponent = above - 1
    roots = _ROOTS[exponent & 1, np.floor(8 * (2 * half - 1)).astype(np.int64)]
    result = np.ldexp(roots / 256, -(exponent >> 1))
    special = np.where(values == 0, np.inf, np.where(values == np.inf, 0.0, np.nan))
    return _bits(np.where(usable, result, special).astype(np.float32))
