"""What a traced kernel means, in plain numpy on whole arrays: the answer the machine must give bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DataflowOp, Reduce
from headrace_host.errors import CompileError
from headrace_host.kernels.trace import BF16, I8, I16, U8, Constant, Kernel, Stream, streams

Patterns = NDArray[np.int32]
_EIGHTHS = np.array([256, 279, 304, 332, 362, 395, 431, 470, 512])
_RECIPROCALS = np.rint(65536 / (1 + np.arange(33) / 32))[None]
_ROOTS = np.rint(65536 / np.sqrt(np.outer([1, 2], 1 + np.arange(17) / 16)))
_RANGES: dict[type[Stream], tuple[int, int]] = {I8: (-128, 127), U8: (0, 255), I16: (-(1 << 15), (1 << 15) - 1)}


def evaluate(kernel: Kernel, padded: list[Patterns]) -> Patterns:
    """Patterns of the result from those of the inputs, [rows, pixels, channels] with a margin of what shifts reach."""
    return _values(kernel, padded)[id(kernel.result)]


def evaluate_rows(kernel: Kernel, inputs: list[Patterns]) -> dict[str, Patterns]:
    """Patterns of the results by name from those of the inputs: [rows, elements], of values of rows [rows, 1]."""
    values = _values(kernel, inputs)
    return {name: values[id(stream)] for name, stream in zip(kernel.result_elements, kernel.results, strict=True)}


def _values(kernel: Kernel, inputs: list[Patterns]) -> dict[int, Patterns]:
    values: dict[int, Patterns] = {id(s): p for s, p in zip(kernel.inputs, inputs, strict=True)}
    elements = np.arange(inputs[0].shape[-1], dtype=np.int32)
    for stream in kernel.streams:
        if stream.is_input or id(stream) in values:
            continue
        if stream.reduce:
            values[id(stream)] = _reduced(stream.reduce, values[id(streams(stream.operands)[0])])
            continue
        if stream.is_shifted:
            values[id(stream)] = np.roll(
                values[id(streams(stream.operands)[0])], tuple(-s for s in stream.shift), (0, 1)
            )
            continue
        if isinstance(stream.operands[0], Constant) and stream.operands[0].is_table:
            index = values[id(stream.operands[1])] & 255
            values[id(stream)] = stream.operands[0].patterns[index]
            continue
        operands = [
            values[id(e)] if isinstance(e, Stream) else elements if e.is_index else e.patterns for e in stream.operands
        ]
        values[id(stream)] = _lane(stream.op, operands[0], operands[-1], stream.sh)
    return values


def _reduced(how: Reduce, a: Patterns) -> Patterns:
    """[rows, 1]."""
    match how:
        case Reduce.SUM:
            return a.sum(axis=1, dtype=np.int32, keepdims=True)
        case Reduce.MAX:
            return a.max(axis=1, keepdims=True)
        case Reduce.MIN:
            return a.min(axis=1, keepdims=True)
        case Reduce.FMAX:
            return _by_magnitude(_by_magnitude(a).max(axis=1, keepdims=True))
        case Reduce.FMIN:
            return _by_magnitude(_by_magnitude(a).min(axis=1, keepdims=True))
    blocks = np.zeros((-(-a.shape[1] // 32) * 32, len(a)), np.float32)
    blocks[: a.shape[1]] = _float(a).T
    partials = np.zeros((8, len(a)), np.float32)
    with np.errstate(all="ignore"):
        for number, block in enumerate(blocks.reshape(-1, 32, len(a))):
            partials[number % 8] = _flushed_sum(partials[number % 8], _pairwise(block))
        return _pattern(_pairwise(partials))[:, None]


def _pairwise(terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Neighbours are added until one is left."""
    if len(terms) == 1:
        return np.asarray(terms[0], np.float32)
    return _pairwise(_flushed_sum(terms[0::2], terms[1::2]))


def _flushed_sum(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return _pattern(a + b).view(np.float32)


def _by_magnitude(a: Patterns) -> Patterns:
    """Integers in the order of fp32 patterns, -0 before +0; its own inverse."""
    return np.where(a < 0, a ^ np.int32(0x7FFFFFFF), a).astype(np.int32)


def decode(element: type[Stream], values: NDArray[Any]) -> Patterns:
    """Patterns of the elements of an array."""
    if element is BF16:
        return (values.astype(np.uint32) << 16).view(np.int32)
    return values.view(np.int32) if values.dtype == np.float32 else values.astype(np.int32)


def encode(element: type[Stream], patterns: Patterns) -> NDArray[Any]:
    """Elements of a result: saturated, rounded (bf16 as uint16) or as they are."""
    if element in _RANGES:
        return np.clip(patterns, *_RANGES[element]).astype({I8: np.int8, U8: np.uint8, I16: np.int16}[element])
    if element is BF16:
        bits = _flushed(patterns).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(patterns.view(np.float32)), 0x7FC0, rounded).astype(np.uint16)
    return patterns


def _flushed(patterns: Patterns) -> Patterns:
    subnormal = (patterns & 0x7F800000) == 0
    return np.where(subnormal, patterns & np.int32(-(1 << 31)), patterns).astype(np.int32)


def _float(patterns: Patterns) -> NDArray[np.float32]:
    return _flushed(patterns).view(np.float32)


def _pattern(values: NDArray[np.float32]) -> Patterns:
    bits = _flushed(np.ascontiguousarray(values, np.float32).view(np.int32))
    return np.where(np.isnan(values), 0x7FC00000, bits).astype(np.int32)


def _lane(op: DataflowOp, a: Patterns, b: Patterns, sh: int) -> Patterns:
    integers: dict[DataflowOp, Any] = {
        DataflowOp.PASS: lambda: a,
        DataflowOp.IADD: lambda: a + b,
        DataflowOp.ISUB: lambda: a - b,
        DataflowOp.IMUL: lambda: a * b,
        DataflowOp.IMIN: lambda: np.minimum(a, b),
        DataflowOp.IMAX: lambda: np.maximum(a, b),
        DataflowOp.ISHR: lambda: ((a.astype(np.int64) + b) >> sh).astype(np.uint32).view(np.int32),
        DataflowOp.IDIVR: lambda: np.sign(a) * ((np.abs(a.astype(np.int64)) * b + (1 << sh >> 1)) >> sh),
        DataflowOp.IAND: lambda: a & b,
        DataflowOp.IOR: lambda: a | b,
        DataflowOp.IXOR: lambda: a ^ b,
        DataflowOp.ISHL: lambda: a << (b & 31),
        DataflowOp.ILT: lambda: -(a < b).astype(np.int32),
        DataflowOp.FLT: lambda: -(_float(a) < _float(b)).astype(np.int32),
        DataflowOp.F2I: lambda: _to_int(_float(a)),
        DataflowOp.F2IC: lambda: _clamped(_to_int(_float(a)), b << np.int32(16) >> np.int32(16), b >> np.int32(16)),
    }
    floats: dict[DataflowOp, Any] = {
        DataflowOp.I2F: lambda: a.astype(np.float32),
        DataflowOp.FADD: lambda: _float(a) + _float(b),
        DataflowOp.FSUB: lambda: _float(a) - _float(b),
        DataflowOp.FMUL: lambda: _float(a) * _float(b),
        DataflowOp.FMIN: lambda: _least(_float(a), _float(b)),
        DataflowOp.FMAX: lambda: -_least(-_float(a), -_float(b)),
        DataflowOp.FRCP: lambda: _reciprocal(_float(a)),
        DataflowOp.FRSQ: lambda: _reciprocal_root(_float(a)),
        DataflowOp.EXP2: lambda: _exponential(a),
    }
    with np.errstate(all="ignore"):
        if op in integers:
            return np.asarray(integers[op](), np.int32)
        if op in floats:
            return _pattern(floats[op]())
    raise CompileError(f"{op.name} is no operation of kernels")


def _least(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smaller, -0 below +0, a NaN if either is."""
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), a, b), np.minimum(a, b))


def _to_int(a: NDArray[np.float32]) -> Patterns:
    rounded = np.rint(np.nan_to_num(a.astype(np.float64), nan=0.0))
    return np.clip(rounded, -(2.0**31), 2.0**31 - 1).astype(np.int64).astype(np.int32)


def _clamped(a: Patterns, low: Patterns, high: Patterns) -> Patterns:
    return np.where(a < low, low, np.where(a > high, high, a))


def _line(tables: NDArray[np.float64], which: Any, fraction: NDArray[np.float32]) -> NDArray[np.float64]:
    """At m = 2 fraction, 1 <= m < 2, straight between the entries of a table of 1..2 in 256 steps; in 65,536ths."""
    usable = np.where(np.isfinite(fraction) & (fraction != 0), fraction, 0.5).astype(np.float64)
    steps = np.floor((2 * usable - 1) * 256 * (tables.shape[1] - 1)).astype(np.int64)
    interval, rest = steps >> 8, steps & 255
    left, right = tables[which, interval], tables[which, interval + 1]
    return np.asarray(left - (left - right) * rest / 256, np.float64)


def _reciprocal(a: NDArray[np.float32]) -> NDArray[np.float32]:
    fraction, exponent = np.frexp(np.abs(a))
    value = np.ldexp(_line(_RECIPROCALS, 0, fraction) / 65536, 1 - exponent).astype(np.float32)
    value = np.where(a == 0, np.inf, np.where(np.isinf(a), 0, value))
    return np.where(np.isnan(a), np.nan, np.copysign(value, a)).astype(np.float32)


def _reciprocal_root(a: NDArray[np.float32]) -> NDArray[np.float32]:
    fraction, exponent = np.frexp(np.abs(a))
    e = exponent.astype(np.int64) - 1
    value = np.ldexp(_line(_ROOTS, e & 1, fraction) / 65536, -(e >> 1))
    value = np.where(a == 0, np.inf, np.where(np.isinf(a), 0, value))
    return np.where(np.isnan(a) | (a < 0), np.nan, value).astype(np.float32)


def _exponential(a: Patterns) -> NDArray[np.float32]:
    n, i, r = a >> 11, a >> 8 & 7, a & 255
    whole = _EIGHTHS[i] * 256 + (_EIGHTHS[i + 1] - _EIGHTHS[i]) * r
    value = np.ldexp(whole.astype(np.float64), np.clip(n, -1000, 1000) - 16)
    return np.where(value < 2.0**-126, 0, value).astype(np.float32)
