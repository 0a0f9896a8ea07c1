"""Softmax on the dataflow array: passes over each row of codes.

TFLite's rule, every step fp32: with d = max - x, e(d) = exp(-scale * beta * d), the score is
round(e(d) * (1 / (sum of e / 256))) - 128, halves away from zero. Here e(d) comes from tables, the sum is one of
fixed-point numbers, exact before its rounding to fp32, and the reciprocal is within two units in the last place.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DataflowOp, DType, Reduce, Source
from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.layout import View
from headrace_host.compiler.operands import Location, Memory, OutOfScratchpad
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.vector_pass import INT8, Codes, Stream, emit_pass
from headrace_host.errors import CompileError

_FRACTION_BITS = 22
"""Bits of a score below its unit before it is rounded; the largest score, 256, then fits int32."""

_AHEAD = 4
"""Layers before beside which contexts and tables may be loaded; what ends a network is short."""


def exponentials(scale: np.float32, beta: float) -> NDArray[np.float32]:
    """fp32 exp(-scale * beta * d) for d in 0..255, correctly rounded as the C library's expf."""
    step = np.float32(scale * np.float32(beta))
    return np.exp((-step * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)


def sum_bits(classes: int) -> int:
    """Fraction bits of the fixed-point exponentials: their sum stays below 2**31."""
    return 30 - (classes - 1).bit_length()


def sum_steps(columns: int, table: NDArray[np.float32], bits: int, classes: int) -> list[Step]:
    """Distances x to the sum of their exponentials in units of 2**-bits."""
    codes = np.rint(np.ldexp(table.astype(np.float64), bits)).astype(np.int32)
    lookup = Step(op=DataflowOp.PASS, a=Source.MEM, table=codes, reduce=Reduce.SUM, repeat=classes)
    return [*_leave(1 % columns), lookup]


def reciprocal_steps() -> list[Step]:
    """An integer x to fp32 1 / x: t = FRCP(x), then t (1 + e) (1 + e^2) (1 + e^4) with e = 1 - t x."""
    one = _pattern(1.0)
    steps = [
        Step(op=DataflowOp.I2F),
        Step(op=DataflowOp.FRCP, to_y=True),
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.FSUB, a=Source.IMM, b=Source.X, imm=one),
    ]
    for _ in range(2):
        steps += [
            Step(op=DataflowOp.FADD, b=Source.IMM, imm=one),
            Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.X, to_y=True),
            Step(op=DataflowOp.FSUB, b=Source.IMM, imm=one),
            Step(op=DataflowOp.FMUL, b=Source.X),
        ]
    return [*steps, Step(op=DataflowOp.FADD, b=Source.IMM, imm=one), Step(op=DataflowOp.FMUL, b=Source.Y)]


def score_steps(columns: int, table: NDArray[np.float32], bits: int) -> list[Step]:
    """Distances x and y = 1 / sum to scores less the zero point."""
    scaled = np.ldexp(table, bits + 8 + _FRACTION_BITS).astype(np.float32)
    return [
        *_leave(3 % columns),
        Step(op=DataflowOp.PASS, a=Source.MEM, table=scaled.view(np.int32)),
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.F2I),
        Step(op=DataflowOp.ISHR, b=Source.IMM, imm=1 << (_FRACTION_BITS - 1), sh=_FRACTION_BITS),
    ]


def _leave(count: int) -> list[Step]:
    """Steps that leave the first columns alone: their memories hold the vectors of the layers before."""
    return [Step(op=DataflowOp.PASS) for _ in range(count)]


def _pattern(value: float) -> int:
    return int(np.float32(value).view(np.int32))


class SoftmaxLowering:
    """Emits the passes: largest code, distances from it, 1 / sum, scores. Elements take lane 0, one a beat."""

    def __init__(self, memory: Memory, constants: ConstantStore, name: str, source: Location, output: Location) -> None:
        if source.view is None or output.view is None:
            raise OutOfScratchpad(name)
        self._memory, self._constants, self._name = memory, constants, name
        self._source, self._output = source.view, output.view
        self._rows, self._classes = source.pixels, source.channels

    def emit(self, table: NDArray[np.float32]) -> None:
        """All commands; ``table`` holds the exponentials."""
        config, bits = self._memory.config, sum_bits(self._classes)
        largest, inverse, distance = (
            self._memory.scratch(self._name, self._rows, width, prefer=1) for width in (4, 4, self._classes)
        )
        reduce = Step(op=DataflowOp.PASS, reduce=Reduce.MAX, repeat=self._classes)
        self._pass([reduce], (self._source, DType.I8), (largest, DType.B32))
        subtract = Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X)
        self._pass([subtract], (self._source, DType.I8), (distance, DType.U8), y=largest, codes=Codes(0, 0, -1))
        total, invert = sum_steps(config.columns, table, bits, self._classes), reciprocal_steps()
        if self._classes <= config.gasket_beats:
            self._pass([*total, *invert], (distance, DType.U8), (inverse, DType.B32))
        else:  # a pass that long must not wrap
            self._pass(total, (distance, DType.U8), (largest, DType.B32))
            self._pass(invert, (largest, DType.B32), (inverse, DType.B32))
        scores = score_steps(config.columns, table, bits)
        self._pass(scores, (distance, DType.U8), (self._output, DType.I8), y=inverse, codes=Codes(-128))
        self._memory.release_buffers()

    def _pass(
        self,
        steps: list[Step],
        x: tuple[View, DType],
        out: tuple[View, DType],
        *,
        y: View | None = None,
        codes: Codes = INT8,
    ) -> None:
        """One command for each part that the gasket holds: rows, or parts of a row; B32 has one element a row."""
        config = self._memory.config
        installed = self._constants.install(place(config, steps), {}, self._memory.label, layers=_AHEAD)
        taken, given = (1 if kind == DType.B32 else self._classes for _, kind in (x, out))
        limit = config.gasket_beats if installed.wraps else taken * self._rows
        part = taken if given != taken else min(taken, limit)  # what a reduction takes stays together
        rows = limit // part
        if not rows:
            raise CompileError(
                f"softmax '{self._name}': {taken} classes in a pass that wraps, the gasket of machine "
                f"'{config.name}' holds {config.gasket_beats}; raise columns"
            )
        for first, channel in itertools.product(range(0, self._rows, rows), range(0, taken, part)):
            count, width = min(rows, self._rows - first), min(part, taken - channel)
            emitted = min(given, width)
            loops = {"n0": width, "x_dc0": 1, "n1": count, "x_dp1": 1, "y_dp1": 1, "idx_loop": 3}
            loops |= {"m0": emitted, "o_dc0": 1, "m1": count, "o_dp1": 1}
            source = Stream(x[0], first, count, channel, width if taken > 1 else x[0].channels, x[1])
            target = Stream(out[0], first, count, channel, emitted if given > 1 else out[0].channels, out[1])
            side = None if y is None else Stream(y, first, count, 0, y.channels, DType.B32)
            emit_pass(self._memory, installed, loops, source, target, y=side, codes=codes, channels=1)
