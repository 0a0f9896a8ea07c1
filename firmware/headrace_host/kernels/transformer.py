"""What a transformer computes between matrix products, as operators over rows.

Every step is fp32 arithmetic on bf16 or fp32 rows; sums are those of FSUM. up(x) is x rounded up to bf16. Element types
say what is fp32 and what an integer: where the operators are used, tensors have types of their own. Quantisation in
groups of 32 is placed by hand: its values of groups are neither of elements nor of rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DataflowOp, DType, Reduce, Source
from headrace_host.compiler.programs import Step
from headrace_host.kernels.functions import exp, recip, rsqrt, to_codes, up_to_bf16
from headrace_host.kernels.row_passes import Place, RowKernel, RowPass, Unit
from headrace_host.kernels.trace import (
    BF16,
    I8,
    Float32,
    Kernel,
    RowFloat32,
    Stream,
    channels,
    kernel,
    maximum,
    row_max,
    row_sum,
)

_MAGNITUDE = 0x7FFFFFFF
_FRACTION = 23
"""Fraction bits of fp32."""
_CLAMP = (-127 & 0xFFFF) | 127 << 16


def _pattern(value: float | np.float32) -> int:
    return int(np.float32(value).view(np.int32))


def _immediate(op: DataflowOp, value: float | np.float32) -> Step:
    return Step(op=op, b=Source.IMM, imm=_pattern(value))


def _round_up(a: Source) -> list[Step]:
    """up(a / 127) in the place of operand a."""
    to_y = a is Source.Y
    return [
        Step(op=DataflowOp.FMUL, a=a, b=Source.IMM, imm=_pattern(1 / 127), to_y=to_y),
        Step(op=DataflowOp.IADD, a=a, b=Source.IMM, imm=0xFFFF, to_y=to_y),
        Step(op=DataflowOp.IAND, a=a, b=Source.IMM, imm=0xFFFF0000, to_y=to_y),
    ]


def _largest() -> Step:
    """Largest magnitude of a row in all lanes: magnitudes order as integers."""
    return Step(op=DataflowOp.IAND, b=Source.IMM, imm=_MAGNITUDE, reduce=Reduce.MAX, across=True, row=True)


@kernel(result=BF16)
def add(a: BF16, b: BF16) -> Stream:
    """out = a + b."""
    return a + b


@kernel(result=BF16)
def copy(x: BF16) -> Stream:
    """out = x."""
    return x


@kernel(result=BF16)
def embed(codes: I8, scale: RowFloat32) -> Stream:
    """out = codes * scale of the row."""
    return codes.to_float() * scale


def rms_norm(weights: NDArray[np.float32], epsilon: float) -> Kernel:
    """x / sqrt(mean of x^2 + epsilon) * weights (Zhang and Sennrich 2019, "Root mean square layer normalization")."""

    @kernel(result=BF16, name="RMS norm")
    def norm(x: BF16) -> Stream:
        root = rsqrt(row_sum(x * x) * (1 / len(weights)) + epsilon, steps=0)
        return x * root * channels(weights.astype(np.float32))

    return norm


@kernel(result=BF16, name="SiLU gate")
def silu_product(gate: BF16, up: BF16) -> Stream:
    """silu(gate) * up = (gate * up) / (1 + e^-gate)."""
    return recip(exp(gate, factor=-1.0) + 1.0, steps=0) * (gate * up)


@kernel(result={"p": Float32, "inverse": RowFloat32}, name="softmax")
def softmax_rows(x: BF16) -> tuple[Stream, Stream]:
    """p = e^(x - largest x), and the reciprocal of the sum of p."""
    p = exp(x - row_max(x))
    return p, recip(row_sum(p), steps=0)


@cache
def mixing_scale(factor: int) -> Kernel:
    """out = scale * inverse / factor, a power of two, one value a row."""

    @kernel(result=RowFloat32, name="mixing scale")
    def mixed(scale: RowFloat32, inverse: RowFloat32) -> Stream:
        return scale * inverse * (1 / factor)

    return mixed


@kernel(result={"scale": RowFloat32, "codes": I8}, name="quantise")
def quantise_rows(x: BF16) -> tuple[Stream, Stream]:
    """scale = up(max(largest |x|, 1e-12) / 127), codes = x / scale to nearest, -127..127."""
    largest = row_max(abs(x).as_int()).as_float()  # magnitudes order as integers
    scale = up_to_bf16(maximum(largest, 1e-12) * (1 / 127))
    return scale, to_codes(x * recip(scale, steps=0), -127, 127)


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
    of_row = (_largest(), _immediate(DataflowOp.FMAX, floor))
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
        RowPass(Unit.group, (*weighted, _largest()), data, g, vector=vector),
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
