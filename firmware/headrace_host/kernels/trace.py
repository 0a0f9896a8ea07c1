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

from headrace.isa import DataflowOp, DType, Reduce
from headrace_host.errors import CompileError

MAGNITUDE = 0x7FFFFFFF
"""All bits of an fp32 pattern but its sign."""


@dataclass(frozen=True, eq=False)
class Constant:
    """Operand that does not stream: one pattern, a vector of one pattern a channel, a table of 256 patterns, or the
    number of the element in its row.
    """

    patterns: NDArray[np.int32]
    is_float: bool
    is_table: bool = False
    is_index: bool = False

    @property
    def differs(self) -> bool:
        """Whether elements of a row see different values of it."""
        return self.is_index or self.patterns.ndim > 0

    @property
    def immediate(self) -> int | None:
        """The pattern of a single number, else None."""
        return None if self.differs else int(self.patterns)


@dataclass(frozen=True, eq=False)
class Stream:
    """A value of 32 bits for every element: an input, another stream shifted, or the result of a lane operation; with
    ``of_row`` for every row. A reduction to it has one operand.
    """

    is_float: bool
    op: DataflowOp = DataflowOp.PASS
    operands: tuple[Stream | Constant, ...] = ()
    sh: int = 0
    shift: tuple[int, int] = (0, 0)
    name: str = ""
    reduce: Reduce = Reduce.NONE
    of_row: bool = False

    @property
    def is_input(self) -> bool:
        """Whether it is an argument of the kernel."""
        return not self.operands

    @property
    def bits(self) -> Stream:
        """The stream of the same patterns that an operation gives, not a cast."""
        is_cast = self.op is DataflowOp.PASS and len(self.operands) == 1 and not (self.is_shifted or self.reduce)
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
        return Stream(is_float, DataflowOp.PASS, (self,), of_row=self.of_row)

    def shifted(self, rows: int, columns: int = 0) -> Stream:
        """At every place the value ``rows`` below and ``columns`` to the right; outside an input there are zeros, or
        its border again, as the kernel says."""
        if self.of_row:
            raise _error("shifted", "takes a value of every element, not of a row")
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


class RowInt32(Stream):
    """One int32 value a row."""


class RowFloat32(Stream):
    """One fp32 value a row."""


Operand = Stream | Constant | int | float
ELEMENTS: dict[type[Stream], DType] = {
    I8: DType.I8, U8: DType.U8, I16: DType.I16, BF16: DType.BF16, Int32: DType.B32, Float32: DType.B32,
    RowInt32: DType.B32, RowFloat32: DType.B32,
}  # fmt: skip


def is_float(element: type[Stream]) -> bool:
    """Whether elements of this type are fp32 on the machine."""
    return element in (BF16, Float32, RowFloat32)


def is_of_row(element: type[Stream]) -> bool:
    """Whether a row has one value of this type."""
    return element in (RowInt32, RowFloat32)


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


def element_number() -> Constant:
    """The number of the element in its row, from 0."""
    return Constant(np.asarray(0, np.int32), False, is_index=True)


def row_sum(a: Stream) -> Stream:
    """Sum of a row; of fp32 in the machine's order: a pairwise tree in each aligned 32 elements, block b added to
    partial b mod 8, a pairwise tree over these.
    """
    return _reduction("row_sum", Reduce.FSUM if a.is_float else Reduce.SUM, a)


def row_max(a: Stream) -> Stream:
    """Largest of a row."""
    return _reduction("row_max", Reduce.FMAX if a.is_float else Reduce.MAX, a)


def row_min(a: Stream) -> Stream:
    """Smallest of a row."""
    return _reduction("row_min", Reduce.FMIN if a.is_float else Reduce.MIN, a)


def minimum(a: Stream, b: Operand) -> Stream:
    """The smaller."""
    return _typed("minimum", DataflowOp.IMIN, DataflowOp.FMIN, a, b)


def maximum(a: Stream, b: Operand) -> Stream:
    """The larger."""
    return _typed("maximum", DataflowOp.IMAX, DataflowOp.FMAX, a, b)


def unary(name: str, op: DataflowOp, a: Stream, *, wants_float: bool, gives_float: bool) -> Stream:
    """A lane operation on one operand."""
    _require_type(name, wants_float, a)
    return Stream(gives_float, op, (a.bits,), of_row=a.of_row)


def binary(name: str, op: DataflowOp, a: Operand, b: Operand, *, floats: bool, sh: int = 0) -> Stream:
    """A lane operation on two operands."""
    operands = (_operand(name, a, floats), _operand(name, b, floats))
    return Stream(floats, op, operands, sh=sh, of_row=_of_row(operands))


def _of_row(operands: Sequence[Stream | Constant]) -> bool:
    return all(each.of_row if isinstance(each, Stream) else not each.differs for each in operands)


def _reduction(name: str, how: Reduce, a: Stream) -> Stream:
    if a.of_row:
        raise _error(name, "takes a value of every element; this one is of a row already")
    return Stream(a.is_float, DataflowOp.PASS, (a.bits,), reduce=how, of_row=True)


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
    return binary(name, floating if floats else integer, a, b, floats=floats)


def _integers(name: str, op: DataflowOp, a: Operand, b: Operand, *, sh: int = 0) -> Stream:
    return binary(name, op, a, b, floats=False, sh=sh)


def _error(operation: str, what: str) -> CompileError:
    """Names the operation and the line of the kernel, the first outside this package's folder."""
    here = str(Path(__file__).parent)
    line = next(f for f in inspect.stack() if not f.filename.startswith(here))
    return CompileError(f"{Path(line.filename).name}:{line.lineno}: '{operation}' {what}")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A traced function: its inputs and results by name with their elements."""

    name: str
    elements: dict[str, type[Stream]]
    inputs: tuple[Stream, ...]
    results: tuple[Stream, ...]
    result_elements: dict[str, type[Stream]]
    repeats_border: bool = False

    @property
    def result(self) -> Stream:
        """The only result, or the last."""
        return self.results[-1]

    @property
    def result_element(self) -> type[Stream]:
        """Its elements."""
        return list(self.result_elements.values())[-1]

    @property
    def streams(self) -> list[Stream]:
        """All that its results are made of, operands first; once for each result."""
        return [stream for result in self.results for stream in ordered(result)]

    @property
    def works_on_rows(self) -> bool:
        """Whether it has values or numbers of rows, or several results, and so no shifts."""
        numbers = any(isinstance(o, Constant) and o.is_index for stream in self.streams for o in stream.operands)
        return len(self.results) > 1 or numbers or any(stream.of_row for stream in self.streams)


Traced = Stream | tuple[Stream, ...]


def kernel(
    result: type[Stream] | dict[str, type[Stream]], *, border: str = "zero", name: str = ""
) -> Callable[[Callable[..., Traced]], Kernel]:
    """Decorator: trace a function whose arguments are annotated with element types (`U8`, `Float32`, ...).

    ``result``: element type of the result; I8, U8 and I16 saturate, BF16 rounds; of a function that returns several,
    the types by name. ``border``: what shifted reads find outside an input, 'zero' or 'repeat'. ``name``: that of the
    function, if none is given.
    """
    if border not in ("zero", "repeat"):
        raise CompileError(f"border '{border}' does not exist; choose zero or repeat")
    wanted = result if isinstance(result, dict) else {"result": result}

    def trace(function: Callable[..., Traced]) -> Kernel:
        hints = typing.get_type_hints(function)
        title = name or function.__name__
        elements = {n: hints.get(n) for n in inspect.signature(function).parameters}
        for argument, element in elements.items():
            if element not in ELEMENTS:
                names = ", ".join(e.__name__ for e in ELEMENTS)
                raise CompileError(f"kernel '{title}': annotate argument '{argument}' with one of {names}")
        known = typing.cast(dict[str, type[Stream]], elements)
        inputs = tuple(Stream(is_float(element), name=n, of_row=is_of_row(element)) for n, element in known.items())
        value = function(*inputs)
        values = value if isinstance(value, tuple) else (value,)
        if len(values) != len(wanted):
            raise CompileError(f"kernel '{title}' returns {len(values)} streams, {len(wanted)} are named")
        for each, element in zip(values, wanted.values(), strict=True):
            _check_result(title, each, element)
        return Kernel(title, known, inputs, tuple(v.bits for v in values), wanted, border == "repeat")

    return trace


def _check_result(title: str, value: object, element: type[Stream]) -> None:
    if not isinstance(value, Stream) or value.is_float != is_float(element):
        kind = "an fp32" if is_float(element) else "an int32"
        raise CompileError(f"kernel '{title}' must return {kind} stream for {element.__name__}")
    if value.of_row and not is_of_row(element):
        raise CompileError(f"kernel '{title}': a value of a row is RowFloat32 or RowInt32, not {element.__name__}")
    if is_of_row(element) and not value.of_row:
        raise CompileError(
            f"kernel '{title}': {element.__name__} is one value a row; reduce with row_sum, row_max, ..."
        )


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
