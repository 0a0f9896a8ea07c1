"""What a transformer computes between matrix products, as passes over rows.

Every step is fp32 arithmetic on bf16 or fp32 rows; sums are those of FSUM. up(x) is x rounded up to bf16.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DataflowOp, DType, Reduce, Source
from headrace_host.compiler.programs import Step
from headrace_host.kernels.rows import Place, RowKernel, RowPass, Unit

_MAGNITUDE = 0x7FFFFFFF
_FRACTION = 23
"""Fraction bits of fp32."""
_EXP_SCALE = np.float32(np.float32(np.log2(np.e)) * np.float32(2048))
"""EXP2 takes powers of two with 11 fraction bits."""
_CLAMP = (-127 & 0xFFFF) | 127 << 16


def _pattern(value: float | np.float32) -> int:
    return int(np.float32(value).view(np.int32))


def _immediate(op: DataflowOp, value: float | np.float32) -> Step:
    return Step(op=op, b=Source.IMM, imm=_pattern(value))


def _exponential(sign: float = 1.0) -> list[Step]:
    """x = e^(sign x)."""
    return [
        _immediate(DataflowOp.FMUL, np.float32(sign) * _EXP_SCALE),
        Step(op=DataflowOp.F2I),
        Step(op=DataflowOp.EXP2),
    ]


def _round_up(a: Source) -> list[Step]:
    """up(a / 127) in the place of operand a."""
    to_y = a is Source.Y
    return [
        Step(op=DataflowOp.FMUL, a=a, b=Source.IMM, imm=_pattern(1 / 127), to_y=to_y),
        Step(op=DataflowOp.IADD, a=a, b=Source.IMM, imm=0xFFFF, to_y=to_y),
        Step(op=DataflowOp.IAND, a=a, b=Source.IMM, imm=0xFFFF0000, to_y=to_y),
    ]


def _largest(*, row: bool) -> Step:
    """Largest magnitude of a row (or, without, of one beat) in all lanes: magnitudes order as integers."""
    return Step(op=DataflowOp.IAND, b=Source.IMM, imm=_MAGNITUDE, reduce=Reduce.MAX, across=True, row=row)


def _elementwise(name: str, steps: list[Step], x: Place, y: Place | None = None) -> RowKernel:
    passes = (RowPass(Unit.element, tuple(steps), x, Place("out", Unit.element), y),)
    return RowKernel(name, passes, {}, ("out",))


@cache
def add() -> RowKernel:
    """out = a + b."""
    steps = [Step(op=DataflowOp.FADD, b=Source.Y)]
    return _elementwise("add", steps, Place("a", Unit.element), Place("b", Unit.element))


@cache
def copy() -> RowKernel:
    """out = x."""
    return _elementwise("copy", [Step(op=DataflowOp.PASS)], Place("x", Unit.element))


@cache
def embed() -> RowKernel:
    """out = codes * scale of the row."""
    steps = [Step(op=DataflowOp.I2F), Step(op=DataflowOp.FMUL, b=Source.Y)]
    return _elementwise("embed", steps, Place("codes", Unit.element), Place("scale", Unit.row))


def rms_norm(weights: NDArray[np.float32], epsilon: float) -> RowKernel:
    """x / sqrt(mean of x^2 + epsilon) * weights."""
    root = (
        Step(op=DataflowOp.FMUL, reduce=Reduce.FSUM, row=True),
        _immediate(DataflowOp.FMUL, np.float32(1 / len(weights))),
        _immediate(DataflowOp.FADD, epsilon),
        Step(op=DataflowOp.FRSQ),
    )
    scaled = (
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.FMUL, b=Source.MEM, vector="weights"),
    )
    x, record = Place("x", Unit.element), Place("root", Unit.row)
    passes = (
        RowPass(Unit.element, root, x, record),
        RowPass(
            Unit.element, scaled, x, Place("out", Unit.element), record,
            constants={"weights": weights.astype(np.float32)},
        ),
    )  # fmt: skip
    return RowKernel("RMS norm", passes, {"root": (Unit.row, DType.B32, True)}, ("out",))


@cache
def silu_product() -> RowKernel:
    """silu(gate) * up = (gate * up) / (1 + e^-gate)."""
    gate, product = Place("gate", Unit.element), Place("product", Unit.element)
    sigmoid = (
        *_exponential(-1.0),
        _immediate(DataflowOp.FADD, 1.0),
        Step(op=DataflowOp.FRCP),
        Step(op=DataflowOp.FMUL, b=Source.Y),
    )
    passes = (
        RowPass(Unit.element, (Step(op=DataflowOp.FMUL, b=Source.Y),), gate, product, Place("up", Unit.element)),
        RowPass(Unit.element, sigmoid, gate, Place("out", Unit.element), product),
    )
    return RowKernel("SiLU gate", passes, {"product": (Unit.element, DType.B32, False)}, ("out",))


@cache
def softmax_rows() -> RowKernel:
    """p = e^(x - largest x) as stored, and the reciprocal of the sum of what is stored."""
    x, p, largest = Place("x", Unit.element), Place("p", Unit.element), Place("largest", Unit.row)
    passes = (
        RowPass(Unit.element, (Step(op=DataflowOp.PASS, reduce=Reduce.FMAX, across=True, row=True),), x, largest),
        RowPass(Unit.element, (Step(op=DataflowOp.FSUB, b=Source.Y), *_exponential()), x, p, largest),
        RowPass(
            Unit.element,
            (Step(op=DataflowOp.PASS, reduce=Reduce.FSUM, row=True), Step(op=DataflowOp.FRCP)),
            p,
            Place("inverse", Unit.row),
        ),
    )
    return RowKernel("softmax", passes, {"largest": (Unit.row, DType.B32, False)}, ("p", "inverse"))


def mixing_scale(factor: int) -> RowKernel:
    """out = scale * inverse / factor, a power of two, one value a row."""
    steps = (Step(op=DataflowOp.FMUL, b=Source.Y), _immediate(DataflowOp.FMUL, 1 / factor))
    passes = (RowPass(Unit.row, steps, Place("scale", Unit.row), Place("out", Unit.row), Place("inverse", Unit.row)),)
    return RowKernel("mixing scale", passes, {}, ("out",))


@cache
def quantise_rows() -> RowKernel:
    """scale = up(max(largest |x|, 1e-12) / 127), codes = x / scale to nearest, -127..127."""
    scale = Place("scale", Unit.row)
    passes = (
        RowPass(
            Unit.element,
            (_largest(row=True), _immediate(DataflowOp.FMAX, 1e-12), *_round_up(Source.X)),
            Place("x", Unit.element),
            scale,
        ),
        RowPass(
            Unit.element,
            (
                Step(op=DataflowOp.FRCP, a=Source.Y, to_y=True),
                Step(op=DataflowOp.FMUL, b=Source.Y),
                Step(op=DataflowOp.F2IC, b=Source.IMM, imm=_CLAMP),
            ),
            Place("x", Unit.element),
            Place("codes", Unit.element),
            scale,
        ),
    )
    return RowKernel("quantise", passes, {}, ("codes", "scale"))


@cache
def quantise_groups() -> RowKernel:
    """Codes with an activation shift for each group of 32, and the scale of each row.

    a = max(largest |x| of the row, 1e-12), s = up(a / 127); of a group with largest g: ka = largest j in 0..7 with
    g 2^j <= a, code = x / (s 2^-ka) to nearest, -127..127.
    """
    return _quantise("x", None, 1e-12)


@cache
def largest_of_groups() -> RowKernel:
    """The first pass of `quantise_groups`, for rows that are made part by part: g, packed bf16."""
    whole = quantise_groups()
    return RowKernel("largest of groups", whole.passes[:1], {}, ("g",))


@cache
def quantise_measured() -> RowKernel:
    """The other passes of `quantise_groups`: takes g too."""
    whole = quantise_groups()
    records = {name: record for name, record in whole.records.items() if name != "g"}
    return RowKernel("quantise measured groups", whole.passes[1:], records, whole.results)


@cache
def quantise_probabilities() -> RowKernel:
    """`quantise_groups` of p * unit, unit being a vector."""
    return _quantise("p", "unit", 1e-20)


def _quantise(name: str, vector: str | None, floor: float) -> RowKernel:
    """Records: g, largest of a group, packed; a of a row; z = s 2^-ka of a group."""
    data = Place(name, Unit.element)
    g, a, z = Place("g", Unit.values), Place("a", Unit.row), Place("z", Unit.each)
    weighted = () if vector is None else (Step(op=DataflowOp.FMUL, b=Source.MEM, indexed=True),)
    weighted_y = (
        () if vector is None else (Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, indexed=True, to_y=True),)
    )
    of_row = (_largest(row=True), _immediate(DataflowOp.FMAX, floor))
    step = (
        # Patterns of positive numbers: the difference of two is that of their exponents, less one if the fraction is.
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X),
        Step(op=DataflowOp.IMIN, b=Source.IMM, imm=(8 << _FRACTION) - 1),
        Step(op=DataflowOp.IAND, b=Source.IMM, imm=7 << _FRACTION),
        *_round_up(Source.Y),
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X, reduce=Reduce.MAX, repeat=1, across=True),
    )
    code = (
        Step(op=DataflowOp.FRCP),
        *weighted_y,
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.F2IC, b=Source.IMM, imm=_CLAMP),
    )
    shift = (
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X),
        Step(op=DataflowOp.ISHR, b=Source.IMM, sh=_FRACTION),
    )
    passes = (
        RowPass(Unit.group, (*weighted, _largest(row=True)), data, g, vector=vector),
        RowPass(Unit.values, of_row, g, a),
        RowPass(Unit.values, (*of_row, *_round_up(Source.X)), g, Place("scale", Unit.row)),
        RowPass(Unit.each, step, g, z, a),
        RowPass(Unit.group, code, z, Place("codes", Unit.element), data, vector=vector),
        RowPass(Unit.word, shift, z, Place("shifts", Unit.word), Place("scale", Unit.row)),
    )
    kind = DType.BF16 if vector is None else DType.B32
    # Probabilities are quantised while the MAC array multiplies, which reads the other sub-bank.
    other = vector is None
    records = {
        "g": (Unit.values, kind, False),
        "a": (Unit.row, DType.B32, other),
        "z": (Unit.each, DType.BF16, other),
    }
    return RowKernel("quantise groups", passes, records, ("codes", "shifts", "scale"))
