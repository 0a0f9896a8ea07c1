"""Random chains of dataflow operations whose operands stay where the operations are defined."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headrace.isa import DataflowOp, DType, MemIndex, Reduce, Source

__all__ = ["ANY", "BOUNDS", "Chain", "Interval", "Stage", "convolution_chain", "random_chain", "random_words"]

Op = DataflowOp
Words = npt.NDArray[np.uint32]

INT32 = (-(2**31), 2**31 - 1)
IMUL_LIMIT = 2**24
IDIVR_LIMIT = 2**24 - 1
_INTEGER = {Op.IADD, Op.ISUB, Op.IMUL, Op.IMIN, Op.IMAX, Op.IAND, Op.IOR, Op.IXOR}
_SWAPPABLE = _INTEGER | {Op.FADD, Op.FSUB, Op.FMUL, Op.FMIN, Op.FMAX, Op.ILT, Op.FLT}
_FLOAT = {Op.F2I, Op.FADD, Op.FSUB, Op.FMUL, Op.FMIN, Op.FMAX, Op.FRCP, Op.FLT, Op.FRSQ}
_OP_CODES = 64  # those beyond the operations are PASS
_SOURCE_CODES = 8  # those beyond the sources are X
_INDEX = 1 << 23  # beyond every operand IDX
_ORDERED = {Reduce.MAX, Reduce.MIN, Reduce.FMAX, Reduce.FMIN}  # the result is one of the values
_TABLE = 256  # elements of a lane's table
_INFINITY, _QUIET_NAN = 0x7F800000, 0x7FC00000


@dataclass(frozen=True)
class Interval:
    """Smallest and largest value as a signed 32-bit integer."""

    low: int
    high: int

    @property
    def magnitude(self) -> int:
        return max(abs(self.low), abs(self.high))


ANY = Interval(*INT32)
BOUNDS = {
    DType.I4: Interval(-8, 7),
    DType.I8: Interval(-128, 127),
    DType.U8: Interval(0, 255),
    DType.I16: Interval(-(2**15), 2**15 - 1),
    DType.BF16: ANY,
    DType.B32: ANY,
}


def _interval(*values: int) -> Interval:
    low, high = min(values), max(values)
    return Interval(low, high) if INT32[0] <= low and high <= INT32[1] else ANY


@dataclass
class Stage:
    """One column's work: context fields without memory base, and the vectors it reads (index, lane), if any."""

    context: dict[str, int]
    memory: Words | None = None


@dataclass
class Chain:
    """Stages in beat order; `reduction` is the product of the repeats, `x` bounds the result.

    `across`: some reduction merges the lanes, so that emitted beats have all of them.
    """

    stages: list[Stage] = field(default_factory=list)
    reduction: int = 1
    across: bool = False
    x: Interval = ANY
    y: Interval = Interval(0, 0)


def random_words(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Words:
    """Operands: `int` small integers, `float` ordinary numbers, `bits` any pattern, special ones included."""
    if kind == "int":
        scale = 1 << rng.integers(1, 24)
        return rng.integers(-scale, scale, shape).astype(np.int32).view(np.uint32)
    if kind == "float":
        return (rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12)).astype(np.float32).view(np.uint32)
    words = rng.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32)
    special = np.array(
        [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00800000, 0x007FFFFF, 0x3F000000], np.uint32
    )
    return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), words).astype(np.uint32)


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def convolution_chain(
    rng: np.random.Generator,
    *,
    blocks: int,
    lanes: int,
    bound: int,
    sink: DType,
    residual: DType | None,
    zero_point: int,
) -> Chain:
    """Bias and scale, then for a BF16 sink the sum with the residual y, otherwise round and clamp as quantised
    convolutions need them, and the fixed-point addition of y: (x ma + (y - zero) mb + 2^(sh-1)) >> sh."""
    bias = rng.integers(-bound // 4 - 1, bound // 4 + 1, (blocks, lanes)).astype(np.int32).view(np.uint32)
    typical = 40.0 / max(bound / 8, 1.0)
    scale = (typical * rng.uniform(0.5, 2.0, (blocks, lanes))).astype(np.float32).view(np.uint32)
    stages = [
        Stage({"op": Op.IADD, "a": Source.X, "b": Source.MEM, "mem_index": MemIndex.IDX}, bias),
        Stage({"op": Op.I2F, "a": Source.X}),
        Stage({"op": Op.FMUL, "a": Source.X, "b": Source.MEM, "mem_index": MemIndex.IDX}, scale),
    ]
    if sink == DType.BF16:
        if residual is not None:
            as_float = [] if residual == DType.BF16 else [Stage({"op": Op.I2F, "a": Source.Y, "dst": 1})]
            stages += [*as_float, Stage({"op": Op.FADD, "a": Source.X, "b": Source.Y})]
        return Chain(stages=stages)
    return Chain(stages=stages + _rounding(rng, residual is not None, zero_point))


def _rounding(rng: np.random.Generator, residual: bool, zero_point: int) -> list[Stage]:
    low, high = (-128 - zero_point, 127 - zero_point) if residual else tuple(np.sort(rng.integers(-300, 300, 2)))
    limits = (int(low) & 0xFFFF) | (int(high) & 0xFFFF) << 16
    clamp = Stage({"op": Op.F2IC, "a": Source.X, "b": Source.IMM, "imm": limits})
    if not residual:
        return [clamp if rng.random() < 0.7 else Stage({"op": Op.F2I, "a": Source.X})]
    shift = int(rng.integers(8, 14))
    one, two = (int(v) for v in rng.integers(1 << (shift - 1), 1 << shift, 2))
    return [
        clamp,
        Stage({"op": Op.ISUB, "a": Source.Y, "b": Source.IMM, "imm": zero_point & 0xFFFFFFFF, "dst": 1}),
        Stage({"op": Op.IMUL, "a": Source.X, "b": Source.IMM, "imm": one}),
        Stage({"op": Op.IMUL, "a": Source.Y, "b": Source.IMM, "imm": two, "dst": 1}),
        Stage({"op": Op.IADD, "a": Source.X, "b": Source.Y}),
        Stage({"op": Op.ISHR, "a": Source.X, "b": Source.IMM, "imm": 1 << (shift - 1), "sh": shift}),
    ]


class _Random:
    """Builds one random chain, tracking bounds of x and y."""

    def __init__(
        self, rng: np.random.Generator, blocks: int, lanes: int, x: Interval, y: Interval, tables: bool
    ) -> None:
        self.rng, self.blocks, self.lanes, self.tables = rng, blocks, lanes, tables
        self.chain = Chain(x=x, y=y)

    def stage(self) -> None:
        """Append one operation whose operands suit it."""
        op = Op(int(self.rng.integers(0, len(Op))))
        a, a_bound = self._stream()
        if op in (Op.IMUL, Op.IDIVR) and a_bound.magnitude > IDIVR_LIMIT:
            op = Op(int(self.rng.choice([Op.IADD, Op.ISHR, Op.FMAX, Op.F2IC])))
        code = int(self.rng.integers(len(Op), _OP_CODES)) if op == Op.PASS and self.rng.random() < 0.5 else op
        context: dict[str, int] = {"op": code, "a": self._code(a), "dst": int(self.rng.random() < 0.2)}
        if self.rng.random() < 0.1:  # no effect without a reduction
            context |= {"across": 1, "row": int(self.rng.integers(0, 2)), "repeat": int(self.rng.integers(0, 1 << 16))}
        result, memory = self._operand(context, op, a_bound)
        if op == Op.ISHR:
            context["sh"] = int(self.rng.integers(0, 20))
            result = _interval(result.low >> context["sh"], result.high >> context["sh"])
        elif op in _SWAPPABLE and context["b"] in (Source.MEM, Source.IMM) and self.rng.random() < 0.3:
            context["a"], context["b"] = context["b"], context["a"]
            result = _interval(-result.high, -result.low) if op == Op.ISUB else result
        self._finish(context, memory, result)

    def _code(self, source: Source) -> int:
        """A code that stands for `source`."""
        other = source == Source.X and self.rng.random() < 0.1
        return int(self.rng.integers(len(Source), _SOURCE_CODES)) if other else source

    def reduce(self, repeat: int, *, across: bool, row: bool, sums: bool) -> None:
        """Append a reduction of `repeat` beats, those of a `row`; `across`: and over the lanes; `sums`: FSUM may be."""
        kinds = [k for k in Reduce if k != Reduce.NONE and (k != Reduce.FSUM or (sums and not self._has_sum()))]
        kind = kinds[int(self.rng.integers(0, len(kinds)))]
        a, bound = self._stream() if self.rng.random() < 0.3 else (Source.X, self.chain.x)
        absent = repeat == 1 and self.rng.random() < 0.5  # a repeat of 0 counts as 1
        context: dict[str, int] = {"op": Op.PASS, "a": a, "reduce": kind, "repeat": 0 if absent else repeat}
        if row:
            context |= {"row": 1, "repeat": int(self.rng.integers(0, 1 << 16))}
        context |= {"across": int(across), "dst": int(self.rng.random() < 0.1)}
        across = across or kind == Reduce.FSUM
        values = repeat * (self.lanes if across else 1)
        result = _interval(bound.low * values, bound.high * values, 0) if kind == Reduce.SUM else bound
        if kind == Reduce.FSUM or (across and kind in _ORDERED):
            result = ANY  # the neutral value where all lanes are invalid
        self.chain.reduction *= repeat
        self.chain.across |= across
        self._finish(context, None, result)

    def _has_sum(self) -> bool:
        return any(stage.context.get("reduce") == Reduce.FSUM for stage in self.chain.stages)

    def divide(self, count: int) -> None:
        """Append the rounded division by a count, if x is small enough."""
        if self.chain.x.magnitude <= IDIVR_LIMIT:
            shift = int(self.rng.integers(8, 20))
            context: dict[str, int] = {"op": Op.IDIVR, "a": Source.X, "b": Source.IMM, "sh": shift}
            context["imm"] = min(-(-(1 << shift) // count), IDIVR_LIMIT)
            bound = self.chain.x.magnitude + 1
            self._finish(context, None, Interval(-bound, bound))

    def _stream(self) -> tuple[Source, Interval]:
        return (Source.X, self.chain.x) if self.rng.random() < 0.75 else (Source.Y, self.chain.y)

    def _finish(self, context: dict[str, int], memory: Words | None, result: Interval) -> None:
        self.chain.stages.append(Stage(context, memory))
        if context.get("dst"):
            self.chain.y = result
        else:
            self.chain.x = result

    def _operand(self, context: dict[str, int], op: Op, a: Interval) -> tuple[Interval, Words | None]:
        """Choose operand b; returns the bound of the result before a shift, and the memory vectors."""
        source = Source(int(self.rng.integers(0, len(Source))))
        streams = {Source.X: self.chain.x, Source.Y: self.chain.y, Source.IDX: Interval(0, _INDEX)}
        stream = streams.get(source)
        unsuited = op in (Op.F2IC, Op.IDIVR) or (
            op == Op.IMUL and stream is not None and stream.magnitude > IMUL_LIMIT - 1
        )
        if stream is not None and unsuited:
            source, stream = Source(int(self.rng.integers(2, 4))), None
        context["b"] = self._code(source)
        if stream is not None:
            return self._bound(op, a, stream), None
        index, count = self._index() if source == Source.MEM else (MemIndex.NONE, 1)
        words = self._constants(context, op, a, (count, self.lanes))
        signed = words.view(np.int32).astype(np.int64)
        memory = words if source == Source.MEM else None
        if source == Source.IMM:
            words = np.full_like(words, words[0, 0])
            signed = words.view(np.int32).astype(np.int64)
            context["imm"] = int(words[0, 0])
        context["mem_index"] = index
        b = Interval(int(signed.min()), int(signed.max()))
        if op == Op.F2IC:
            return Interval(-(2**15), 2**15 - 1), memory
        if op == Op.IDIVR:
            bound = (a.magnitude * b.high >> context["sh"]) + 1
            return _interval(-bound, bound), memory
        return self._bound(op, a, b), memory

    def _index(self) -> tuple[MemIndex, int]:
        """How the column's memory is indexed, and how many words are."""
        if self.tables and self.rng.random() < 0.2:
            return (MemIndex.X if self.rng.random() < 0.6 else MemIndex.Y), _TABLE
        return (MemIndex.IDX, self.blocks) if self.rng.random() < 0.7 else (MemIndex.NONE, 1)

    def _constants(self, context: dict[str, int], op: Op, a: Interval, shape: tuple[int, int]) -> Words:
        if op == Op.F2IC:
            limits = np.sort(self.rng.integers(-(2**15), 2**15, (2, *shape)), axis=0)
            return ((limits[0] & 0xFFFF) | (limits[1] & 0xFFFF) << 16).astype(np.uint32)
        if op == Op.IDIVR:
            context["sh"] = int(self.rng.integers(1, 24))
            room = max(1, min(IDIVR_LIMIT, (2**30 << context["sh"]) // max(a.magnitude, 1)))
            return self.rng.integers(0, room, shape).astype(np.uint32)
        if op == Op.IMUL:
            scale = 1 << int(self.rng.integers(1, 24))
            return self.rng.integers(-scale, scale, shape).astype(np.int32).view(np.uint32)
        kinds = ["float", "bits"] if op in _FLOAT else ["int", "int", "bits"]
        return random_words(self.rng, shape, str(self.rng.choice(kinds)))

    @staticmethod
    def _bound(op: Op, a: Interval, b: Interval) -> Interval:
        if op == Op.PASS:
            return a
        if op == Op.IADD:
            return _interval(a.low + b.low, a.high + b.high)
        if op == Op.ISHR:  # before its shift: 33 bits
            return Interval(a.low + b.low, a.high + b.high)
        if op == Op.ISUB:
            return _interval(a.low - b.high, a.high - b.low)
        if op == Op.IMUL:
            return _interval(*(p * q for p in (a.low, a.high) for q in (b.low, b.high)))
        if op == Op.IMIN:
            return Interval(min(a.low, b.low), min(a.high, b.high))
        if op == Op.IMAX:
            return Interval(max(a.low, b.low), max(a.high, b.high))
        if op == Op.IAND and max(a.low, b.low) >= 0:
            return Interval(0, min(i.high for i in (a, b) if i.low >= 0))
        if op in (Op.IAND, Op.IOR, Op.IXOR):
            power = 1 << max(v.bit_length() for v in (a.low, a.high, b.low, b.high))
            return _interval(-power, power - 1)
        if op in (Op.ILT, Op.FLT):
            return Interval(-1, 0)
        if op == Op.EXP2:
            return Interval(0, _INFINITY)
        if op == Op.FRSQ:
            return Interval(0, _QUIET_NAN)
        return ANY


def random_chain(
    rng: np.random.Generator,
    *,
    length: int,
    blocks: int,
    lanes: int,
    x: Interval,
    y: Interval,
    repeats: tuple[int, ...] = (),
    across: bool = False,
    row: bool = False,
    sums: bool = False,
    tables: bool = False,
) -> Chain:
    """`length` random operations with a reduction for each of `repeats` among them; `blocks` vectors are indexed.

    `across`: reductions may merge the lanes; `row`: the first takes the beats of a row; `sums`: the machine has FSUM;
    `tables`: a column memory has room for a table.
    """
    builder = _Random(rng, blocks, lanes, x, y, tables)
    places = sorted(int(i) for i in rng.integers(0, length + 1, len(repeats)))
    pending = list(repeats)
    for position in range(length + 1):
        while pending and places[len(repeats) - len(pending)] <= position:
            whole = row and len(pending) == len(repeats)
            repeat = pending.pop(0)
            builder.reduce(repeat, across=across and rng.random() < 0.6, row=whole, sums=sums and across)
            if rng.random() < 0.3:
                builder.divide(repeat)
        if position < length:
            builder.stage()
    return builder.chain
