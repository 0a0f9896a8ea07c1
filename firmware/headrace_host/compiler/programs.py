"""Dataflow programs: chains of lane operations placed on the columns of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, MemIndex, Reduce, Source, encode_context
from headrace_host.errors import CompileError
from headrace_host.quantise import AddConstants, RequantConstants
from headrace_host.rescale import SHIFT, RescaleConstants


@dataclass(frozen=True, kw_only=True)
class Step:
    """One lane operation. The operand `Source.MEM` is a per-channel vector of the name ``vector``, or an element of
    ``table``: 256 patterns of 32 bits, chosen by the low byte of x, [256] for lane 0 alone or [256, L] for all lanes.
    ``index`` may have y choose it, or the beat's idx, from [words, L]. With ``indexed`` it is what others have loaded
    to the word of the beat's idx. ``row``: a reduction takes the beats of a row, not ``repeat``.
    """

    op: DataflowOp
    a: Source = Source.X
    b: Source = Source.X
    to_y: bool = False
    imm: int = 0
    sh: int = 0
    reduce: Reduce = Reduce.NONE
    repeat: int = 0
    across: bool = False
    row: bool = False
    vector: str | None = None
    table: NDArray[np.int32] | None = None
    index: MemIndex = MemIndex.X
    indexed: bool = False


@dataclass(frozen=True)
class Program:
    """A placed chain: context words, how often it wraps, and where its vectors and tables go.

    ``vectors`` maps a vector's name to (column, first word of its area); all areas have ``area_words`` words. A table
    takes the first 256 words of its column.
    """

    contexts: tuple[tuple[int, ...], ...]
    vectors: dict[str, tuple[int, int]]
    area_words: int
    tables: dict[int, NDArray[np.int32]] = field(default_factory=dict)

    @property
    def wraps(self) -> int:
        """Times a pass wraps through the gasket."""
        return len(self.contexts) - 1


def place(config: NpuConfig, steps: Sequence[Step]) -> Program:
    """Lay ``steps`` over the columns, S to a context; columns without a step pass on."""
    passes = -(-len(steps) // config.columns)
    if passes > config.contexts:
        raise CompileError(
            f"machine '{config.name}': {len(steps)} dataflow steps need {passes} contexts; raise columns"
        )
    named = [(position % config.columns, step.vector) for position, step in enumerate(steps) if step.vector]
    share = max([sum(column == c for c, _ in named) for column, _ in named], default=1)
    area = config.column_words // share
    vectors: dict[str, tuple[int, int]] = {}
    for column, name in named:
        vectors[name] = (column, area * sum(c == column for c, _ in vectors.values()))
    tables: dict[int, NDArray[np.int32]] = {}
    for position, step in enumerate(steps):
        if step.table is not None:
            if config.column_words < len(step.table):
                raise CompileError(
                    f"machine '{config.name}': a table needs {len(step.table)} words of column memory, it has "
                    f"{config.column_words}; raise column_words"
                )
            tables[position % config.columns] = step.table
    contexts = []
    for first in range(0, passes * config.columns, config.columns):
        words: list[int] = []
        for position in range(first, first + config.columns):
            words += _context(steps[position], vectors) if position < len(steps) else encode_context()
        contexts.append(tuple(words))
    return Program(tuple(contexts), vectors, area, tables)


def _context(step: Step, vectors: dict[str, tuple[int, int]]) -> list[int]:
    memory: dict[str, int] = {}
    if step.vector:
        memory = {"mem_index": MemIndex.IDX, "mem_base": vectors[step.vector][1]}
    elif step.table is not None:
        memory = {"mem_index": step.index}
    elif step.indexed:
        memory = {"mem_index": MemIndex.IDX}
    return encode_context(
        op=step.op,
        a=step.a,
        b=step.b,
        dst=int(step.to_y),
        reduce=step.reduce,
        across=int(step.across),
        row=int(step.row),
        sh=step.sh,
        repeat=step.repeat,
        imm=step.imm & 0xFFFFFFFF,
        **memory,
    )


def requantise_steps(constants: RequantConstants, add: AddConstants | None, *, flip: bool = False) -> list[Step]:
    """Accumulators to int8 codes less the zero point, which the sink adds.

    With ``add`` the residual comes in as y; ``flip`` says that the accumulator is operand b of the addition.
    """
    steps = [
        Step(op=DataflowOp.IADD, b=Source.MEM, vector="bias"),
        Step(op=DataflowOp.I2F),
        Step(op=DataflowOp.FMUL, b=Source.MEM, vector="scale"),
    ]
    if add is None:
        return [*steps, Step(op=DataflowOp.F2I)]
    low, high = constants.act_min - constants.zero_point, constants.act_max - constants.zero_point
    steps.append(Step(op=DataflowOp.F2IC, b=Source.IMM, imm=(low & 0xFFFF) | (high & 0xFFFF) << 16))
    main, side = (add.mb, add.ma) if flip else (add.ma, add.mb)
    side_zero = add.zp_a if flip else add.zp_b
    return [*steps, *_weighted_sum(main, side, add.shift, -side_zero * side)]


def add_steps(add: AddConstants) -> list[Step]:
    """Sum of two int8 streams x and y."""
    return _weighted_sum(add.ma, add.mb, add.shift, -add.zp_a * add.ma - add.zp_b * add.mb)


def _weighted_sum(main: int, side: int, shift: int, offset: int) -> list[Step]:
    """(x * main + y * side + offset + 2**(shift - 1)) >> shift."""
    return [
        Step(op=DataflowOp.IMUL, b=Source.IMM, imm=main),
        Step(op=DataflowOp.IMUL, a=Source.Y, b=Source.IMM, imm=side, to_y=True),
        Step(op=DataflowOp.IADD, b=Source.Y),
        Step(op=DataflowOp.ISHR, b=Source.IMM, imm=offset + (1 << (shift - 1)), sh=shift),
    ]


def copy_steps() -> list[Step]:
    """Elements as they are."""
    return [Step(op=DataflowOp.PASS)]


def rescale_steps(constants: RescaleConstants) -> list[Step]:
    """Codes to codes of another scale, less its zero point."""
    offset = (1 << (SHIFT - 1)) - constants.source_zero * constants.multiplier
    return [
        Step(op=DataflowOp.IMUL, b=Source.IMM, imm=constants.multiplier),
        Step(op=DataflowOp.ISHR, b=Source.IMM, imm=offset, sh=SHIFT),
    ]


def average_steps(count: int) -> list[Step]:
    """Sum of ``count`` beats, divided with halves away from zero.

    The reciprocal is rounded up; its error stays below the distance to the next half as 2**sh > 256 count**2.
    """
    shift = (256 * count**2).bit_length()
    reciprocal = -(-(1 << shift) // count)
    if 128 * count >= 1 << 24 or reciprocal >= 1 << 24 or shift > 31:
        raise CompileError(f"average over {count} elements is too large; pool in two steps")
    return [
        Step(op=DataflowOp.PASS, reduce=Reduce.SUM, repeat=count),
        Step(op=DataflowOp.IDIVR, b=Source.IMM, imm=reciprocal, sh=shift),
    ]


def maximum_steps(count: int) -> list[Step]:
    """Largest of ``count`` beats."""
    return [Step(op=DataflowOp.PASS, reduce=Reduce.MAX, repeat=count)]
