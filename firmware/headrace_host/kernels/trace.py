"""Operators of the dataflow array written as Python functions: tracing of streams to an expression graph.

A function decorated with `kernel` is called with streams and returns one. Every operation on a stream is one lane
operation of the machine; the types int32 and fp32 do not mix without `Stream.to_int` or `Stream.to_float`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headrace.isa import DataflowOp, DType
from headrace_host.errors import CompileError

MAGNITUDE = 0x7FFFFFFF
"""All bits of an fp32 pattern but its sign."""


@dataclass(frozen=True, eq=False)
class Constant:
    """Operand that does not stream: one pattern, a vector of one pattern a channel, or a table of 256 patterns."""

    patterns: NDArray[np.int32]
    is_float: bool
    is_table: bool = False

    @property
    def immediate(self) -> int | None:
        """The pattern of a single number, else None."""
        return int(self.patterns) if self.patterns.ndim == 0 else None


@dataclass(frozen=True, eq=False)
class Stream:
    """A value of 32 bits for every element: an input, another stream shifted, or the result of a lane operation."""

    is_float: bool
    op: DataflowOp = DataflowOp.PASS
    operands: tuple[Stream | Constant, ...] = ()
    sh: int = 0
    shift: tuple[int, int] = (0, 0)
    name: str = ""

    @property
    def is_input(self) -> bool:
        """Whether it is an argument of the kernel."""
        return not self.operands

    @property
    def bits(self) -> Stream:
        """The stream of the same patterns that an operation gives, not a cast."""
        is_cast = self.op is DataflowOp.PASS and len(self.operands) == 1 and not self.is_shifted
        return streams(self.operands)[0].bits if is_cast else self

    @property
    def is_shifted(self) -> bool:
        """Whether it is its operand at another place."""
        return self.shift != (0, 0)

    def __add__(self, other: Operand) -> Stream:
        return _typed("+", DataflowOp.IADD, DataflowOp.FADD, self, other)

    def __radd__(self, other: Operand) -> Stream:
        return self + other

    def __sub__(self, other: Operand) -> Stream:
        return _typed("-", DataflowOp.ISUB, DataflowOp.FSUB, self, other)

    def __rsub__(self, other: Operand) -> Stream:
        return _typed("-", DataflowOp.ISUB, DataflowOp.FSUB, other, self)

    def __neg__(self) -> Stream:
        return _integers("^", DataflowOp.IXOR, self.as_int(), -(1 << 31)).as_float() if self.is_float else 0 - self

    def __mul__(self, other: Operand) -> Stream:
        """Operands of an integer product are within 25 signed bits."""
        return _typed("*", DataflowOp.IMUL, DataflowOp.FMUL, self, other)

    def __rmul__(self, other: Operand) -> Stream:
        return self * other

    def __and__(self, other: Operand) -> Stream:
        return _integers("&", DataflowOp.IAND, self, other)

    def __or__(self, other: Operand) -> Stream:
        return _integers("|", DataflowOp.IOR, self, other)

    def __xor__(self, other: Operand) -> Stream:
        return _integers("^", DataflowOp.IXOR, self, other)

    def __invert__(self) -> Stream:
        return self ^ -1

    def __lshift__(self, other: Operand) -> Stream:
        return _integers("<<", DataflowOp.ISHL, self, other)

    def __rshift__(self, count: int) -> Stream:
        if not isinstance(count, int) or not 0 <= count < 32:
            raise _error(">>", "shifts by a number from 0 to 31")
        return _integers(">>", DataflowOp.ISHR, self, 0, sh=count)

    def __lt__(self, other: Operand) -> Stream:
        """Mask: -1 where smaller, else 0."""
        return _typed("<", DataflowOp.ILT, DataflowOp.FLT, self, other).as_int()

    def __gt__(self, other: Operand) -> Stream:
        return _typed(">", DataflowOp.ILT, DataflowOp.FLT, other, self).as_int()

    def __ge__(self, other: Operand) -> Stream:
        """Mask: not smaller (so true with a NaN)."""
        return ~(self < other)

    def __le__(self, other: Operand) -> Stream:
        return ~(self > other)

    def __abs__(self) -> Stream:
        if self.is_float:
            return _integers("abs", DataflowOp.IAND, self.as_int(), MAGNITUDE).as_float()
        return _typed("abs", DataflowOp.IMAX, DataflowOp.FMAX, self, 0 - self)

    def __bool__(self) -> bool:
        raise _error("truth value", "a stream has no single truth value; use select(mask, a, b)")

    def to_int(self) -> Stream:
        """Rounded half to even, saturated."""
        return unary("to_int", DataflowOp.F2I, self, wants_float=True, gives_float=False)

    def to_float(self) -> Stream:
        """Rounded to fp32."""
        return unary("to_float", DataflowOp.I2F, self, wants_float=False, gives_float=True)

    def as_int(self) -> Stream:
        """The bits, taken as an integer; no operation of the machine."""
        return self._cast(False)

    def as_float(self) -> Stream:
        """The bits, taken as fp32; no operation of the machine."""
        return self._cast(True)

    def _cast(self, is_float: bool) -> Stream:
        if self.is_float == is_float:
            return self
        return Stream(is_float, DataflowOp.PASS, (self,))

    def shifted(self, rows: int, columns: int = 0) -> Stream:
        """At every place the value ``rows`` below and ``columns`` to the right; outside an input there are zeros, or
        its border again, as the kernel says."""
        source = self.bits
        if source.is_shifted:
            rows, columns = rows + source.shift[0], columns + source.shift[1]
            source = streams(source.operands)[0]
        if not rows and not columns:
            return source._cast(self.is_float)
        return Stream(self.is_float, operands=(source,), shift=(rows, columns))


class I8(Stream):
    """int8 elements, as int32."""


class U8(Stream):
    """Elements 0..255, as int32."""


class I16(Stream):
    """int16 elements, as int32."""


class BF16(Stream):
    """bf16 elements, as fp32."""


class Int32(Stream):
    """int32 elements."""


class Float32(Stream):
    """fp32 elements."""


Operand = Stream | Constant | int | float
ELEMENTS: dict[type[Stream], DType] = {
    I8: DType.I8, U8: DType.U8, I16: DType.I16, BF16: DType.BF16, Int32: DType.B32, Float32: DType.B32,
}  # fmt: skip


def is_float(element: type[Stream]) -> bool:
    """Whether elements of this type are fp32 on the machine."""
    return element in (BF16, Float32)


def channels(values: ArrayLike) -> Constant:
    """A vector with one value for every channel; floats make it fp32."""
    return _constant(np.atleast_1d(np.asarray(values)))


def table(values: ArrayLike, index: Stream) -> Stream:
    """``values[index & 255]``; 256 values, floats make the result fp32."""
    constant = _constant(np.asarray(values))
    if constant.patterns.shape != (256,):
        raise _error("table", f"takes 256 values, not an array of shape {constant.patterns.shape}")
    _require_type("table", False, index)
    return Stream(
        constant.is_float, DataflowOp.PASS, (Constant(constant.patterns, constant.is_float, True), index.bits)
    )


def minimum(a: Stream, b: Operand) -> Stream:
    """The smaller."""
    return _typed("minimum", DataflowOp.IMIN, DataflowOp.FMIN, a, b)


def maximum(a: Stream, b: Operand) -> Stream:
    """The larger."""
    return _typed("maximum", DataflowOp.IMAX, DataflowOp.FMAX, a, b)


def unary(name: str, op: DataflowOp, a: Stream, *, wants_float: bool, gives_float: bool) -> Stream:
    """A lane operation on one operand."""
    _require_type(name, wants_float, a)
    return Stream(gives_float, op, (a.bits,))


def _constant(values: NDArray[typing.Any]) -> Constant:
    if values.dtype.kind == "f":
        return Constant(values.astype(np.float32).view(np.int32), True)
    if values.dtype.kind not in "iu" or values.min() < -(1 << 31) or values.max() >= 1 << 32:
        raise _error("constant", "takes numbers of 32 bits")
    return Constant((values.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32), False)


def _operand(name: str, value: Operand, floats: bool) -> Stream | Constant:
    if isinstance(value, (int, float, np.number)):
        value = _constant(np.asarray(np.float32(value) if floats else value))
    if not isinstance(value, (Stream, Constant)):
        raise _error(name, f"takes streams, numbers or channels(...), not {type(value).__name__}")
    _require_type(name, floats, value)
    return value.bits if isinstance(value, Stream) else value


def _require_type(name: str, floats: bool, value: Stream | Constant) -> None:
    if value.is_float != floats:
        kinds = ("fp32", "int32") if floats else ("int32", "fp32")
        raise _error(name, f"takes {kinds[0]} here, not {kinds[1]}; convert with to_float() or to_int()")


def _typed(name: str, integer: DataflowOp, floating: DataflowOp, a: Operand, b: Operand) -> Stream:
    floats = next(value.is_float for value in (a, b) if isinstance(value, Stream))
    return Stream(floats, floating if floats else integer, (_operand(name, a, floats), _operand(name, b, floats)))


def _integers(name: str, op: DataflowOp, a: Operand, b: Operand, *, sh: int = 0) -> Stream:
    return Stream(False, op, (_operand(name, a, False), _operand(name, b, False)), sh=sh)


def _error(operation: str, what: str) -> CompileError:
    """Names the operation and the line of the kernel, the first outside this package's folder."""
    here = str(Path(__file__).parent)
    line = next(f for f in inspect.stack() if not f.filename.startswith(here))
    return CompileError(f"{Path(line.filename).name}:{line.lineno}: '{operation}' {what}")


@dataclass(frozen=True)
class Kernel:
    """A traced function: its inputs by name with their elements, and its result."""

    name: str
    elements: dict[str, type[Stream]]
    inputs: tuple[Stream, ...]
    result: Stream
    result_element: type[Stream]
    repeats_border: bool = False


def kernel(result: type[Stream], *, border: str = "zero") -> Callable[[Callable[..., Stream]], Kernel]:
    """Decorator: trace a function whose arguments are annotated with element types (`U8`, `Float32`, ...).

    ``result``: element type of the result; I8, U8 and I16 saturate, BF16 rounds. ``border``: what shifted reads find
    outside an input, 'zero' or 'repeat'.
    """
    if border not in ("zero", "repeat"):
        raise CompileError(f"border '{border}' does not exist; choose zero or repeat")

    def trace(function: Callable[..., Stream]) -> Kernel:
        hints = typing.get_type_hints(function)
        elements = {name: hints.get(name) for name in inspect.signature(function).parameters}
        for name, element in elements.items():
            if element not in ELEMENTS:
                names = ", ".join(e.__name__ for e in ELEMENTS)
                raise CompileError(f"kernel '{function.__name__}': annotate argument '{name}' with one of {names}")
        known = typing.cast(dict[str, type[Stream]], elements)
        inputs = tuple(Stream(is_float(element), name=name) for name, element in known.items())
        value = function(*inputs)
        if not isinstance(value, Stream) or value.is_float != is_float(result):
            kind = "an fp32" if is_float(result) else "an int32"
            raise CompileError(f"kernel '{function.__name__}' must return {kind} stream for {result.__name__}")
        return Kernel(function.__name__, known, inputs, value.bits, result, border == "repeat")

    return trace


def ordered(result: Stream) -> list[Stream]:
    """Every stream that ``result`` is made of, operands first, each once."""
    found: dict[int, Stream] = {}
    pending: list[tuple[Stream, bool]] = [(result, False)]
    while pending:
        stream, visited = pending.pop()
        if visited:
            found.setdefault(id(stream), stream)
        elif id(stream) not in found:
            pending.append((stream, True))
            pending += [(each, False) for each in streams(stream.operands)]
    return list(found.values())


def streams(operands: Sequence[Stream | Constant]) -> list[Stream]:
    """Those operands that stream."""
    return [each for each in operands if isinstance(each, Stream)]
