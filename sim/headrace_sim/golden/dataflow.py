"""The dataflow array: contexts of S columns applied to all beats of a command at once."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import CONTEXT_FIELDS, CONTEXT_WORDS, Cause, DataflowOp, MemIndex, Reduce, Source

from . import fp
from .errors import Fault
from .lane import lane_op

__all__ = ["Beats", "DataflowArray"]

_TABLE = 256  # elements of a table that lanes look up
_SMALLEST, _LARGEST = -(1 << 31), (1 << 31) - 1
_NEUTRAL = {  # what an invalid lane counts as; of FMAX and FMIN in the order of `fp.order`
    Reduce.SUM: 0, Reduce.FSUM: 0,
    Reduce.MAX: _SMALLEST, Reduce.FMAX: _SMALLEST, Reduce.MIN: _LARGEST, Reduce.FMIN: _LARGEST,
}  # fmt: skip


class Beats(NamedTuple):
    """Beats in order: x, y int32 [n, L]; idx [n], index into column memories; lanes bool [n, L], the valid ones;
    number [n], which of the beats that entered this is or, after a reduction, was the last of; ends bool [n], the last
    beats of rows.
    """

    x: np.ndarray
    y: np.ndarray
    idx: np.ndarray
    lanes: np.ndarray
    number: np.ndarray
    ends: np.ndarray

    @property
    def total(self) -> int:
        return len(self.x)

    def select(self, step: slice) -> "Beats":
        """Some of the beats."""
        return Beats(*(a[step] for a in self))

    @classmethod
    def join(cls, parts: "list[Beats]") -> "Beats":
        """The beats of several passes in order."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True, kw_only=True)
class _Context:
    """A column's context, fields as in `CONTEXT_FIELDS`."""

    op: int
    a: int
    b: int
    dst: int
    reduce: int
    row: int
    mem_index: int
    across: int
    sh: int
    mem_base: int
    repeat: int
    imm: int

    @classmethod
    def of(cls, words: np.ndarray) -> "_Context":
        return _context(words.astype("<u4", copy=False).tobytes())

    @property
    def passes(self) -> bool:
        """Whether beats go through unchanged."""
        return self.op == DataflowOp.PASS and self.a == Source.X and not (self.dst or self.reduce)


@lru_cache(1 << 14)
def _context(raw: bytes) -> _Context:
    """The context in 16 bytes; contexts recur."""
    bits = int.from_bytes(raw, "little")
    return _Context(**{f.name: bits >> f.offset & ((1 << f.width) - 1) for f in CONTEXT_FIELDS})


class DataflowArray:
    """S columns with their memories (int32 [S, column_words, L]) and contexts (uint32 [contexts, S, 4]), zero at first.

    A pass is one call of `run`: reduction counters start at zero.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._columns = config.columns
        self._sum_column = config.sum_column
        self.lanes = config.vector_lanes
        self._gasket_beats = config.gasket_beats
        self.memory = np.zeros((config.columns, config.column_words, config.vector_lanes), np.int32)
        self.contexts = np.zeros((config.contexts, config.columns, CONTEXT_WORDS), np.uint32)

    def check(self, ctx: int, wraps: int, pass_beats: int = 0) -> None:
        """Contexts ctx .. ctx + wraps exist and the gasket holds the pass (it always holds an accumulator tile).

        Raises:
            Fault: RANGE with the last context, or with the number of the first beat that does not fit the gasket.
        """
        if ctx + wraps >= len(self.contexts):
            raise Fault(Cause.RANGE, ctx + wraps)
        if wraps and pass_beats > self._gasket_beats:
            raise Fault(Cause.RANGE, self._gasket_beats)

    def reduces(self, ctx: int, wraps: int) -> bool:
        """Whether any column reduces in contexts ctx .. ctx + wraps."""
        columns = self.contexts[ctx : ctx + wraps + 1].reshape(-1, CONTEXT_WORDS)
        return any(_Context.of(words).reduce for words in columns)

    def run(self, beats: Beats, ctx: int, wraps: int) -> Beats:
        """Beats that leave the last column in the last sub-pass.

        Raises:
            Fault: RANGE with the word address of a column memory.
        """
        for sub_pass in range(wraps + 1):
            for column in range(self._columns):
                context = _Context.of(self.contexts[ctx + sub_pass, column])
                # Operand b is fetched even where it is not used: its address may be bad.
                if not (context.passes and context.b != Source.MEM):
                    beats = self._column(column, context, beats)
        return beats

    def _column(self, column: int, c: _Context, beats: Beats) -> Beats:
        op = DataflowOp(c.op) if c.op in DataflowOp.__members__.values() else DataflowOp.PASS
        result = lane_op(op, self._operand(column, c, c.a, beats), self._operand(column, c, c.b, beats), c.sh)
        beats = beats._replace(y=result) if c.dst else beats._replace(x=result)
        how = self._reduction(column, c)
        if how == Reduce.NONE:
            return beats
        length = _row_length(beats.ends) if c.row else max(c.repeat, 1)
        groups = beats.total // length
        merges = bool(c.across) or how == Reduce.FSUM
        if how in (Reduce.FMAX, Reduce.FMIN):
            result = fp.order(result)
        if merges:
            result = np.where(beats.lanes, result, np.int32(_NEUTRAL[how]))
        grouped = result[: groups * length].reshape(groups, length, self.lanes)
        beats = beats.select(slice(length - 1, groups * length, length))
        if how == Reduce.FSUM:
            reduced = fp.row_sum(grouped.reshape(groups, length * self.lanes))[:, None]
        else:
            reduced = _reduce(how, grouped)
            if merges:
                reduced = _reduce(how, reduced[:, :, None])
            if how in (Reduce.FMAX, Reduce.FMIN):
                reduced = fp.order(reduced)
        if merges:
            reduced = np.repeat(reduced, self.lanes, axis=1)
            beats = beats._replace(lanes=np.ones_like(beats.lanes))
        return beats._replace(y=reduced) if c.dst else beats._replace(x=reduced)

    def _reduction(self, column: int, c: _Context) -> Reduce:
        how = Reduce(c.reduce) if c.reduce in Reduce.__members__.values() else Reduce.NONE
        return Reduce.NONE if how == Reduce.FSUM and column != self._sum_column else how

    def _operand(self, column: int, c: _Context, source: int, beats: Beats) -> np.ndarray:
        match source:
            case Source.Y:
                return beats.y
            case Source.IMM:
                return np.full_like(beats.x, np.uint32(c.imm).view(np.int32))
            case Source.MEM:
                return self._fetch(self.memory[column], c, beats)
            case Source.IDX:
                return (beats.idx[:, None] * self.lanes + np.arange(self.lanes)).astype(np.int32)
            case _:
                return beats.x

    def _fetch(self, memory: np.ndarray, c: _Context, beats: Beats) -> np.ndarray:
        """Operand MEM of a column, broadcast to [n, L]."""
        if c.mem_index in (MemIndex.X, MemIndex.Y):
            last = c.mem_base + _TABLE - 1
            if last >= len(memory) and beats.total:
                raise Fault(Cause.RANGE, last)
            key = (beats.x if c.mem_index == MemIndex.X else beats.y) & (_TABLE - 1)
            return memory[c.mem_base + key, np.arange(self.lanes)]
        word = c.mem_base + (beats.idx if c.mem_index == MemIndex.IDX else np.zeros_like(beats.idx))
        bad = word >= len(memory)
        if bad.any():
            raise Fault(Cause.RANGE, int(word[bad][0]))
        return memory[word]


def _row_length(ends: np.ndarray) -> int:
    """Beats of a row; all rows of a pass are of one length."""
    return int(np.argmax(ends)) + 1 if ends.any() else len(ends) + 1


def _reduce(how: Reduce, values: np.ndarray) -> np.ndarray:
    """Reduction over axis 1 of [n, repeat, L] (for lanes: of [n, L, 1])."""
    if how == Reduce.SUM:
        return values.sum(axis=1, dtype=np.int32)
    return values.max(axis=1) if how in (Reduce.MAX, Reduce.FMAX) else values.min(axis=1)
