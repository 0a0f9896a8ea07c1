"""Placement of a traced kernel: passes of at most two streams, in which at most two values live between columns.

Where an expression needs more, a part of it becomes a pass of its own, whose result is a temporary of 32 bits. A pass
that reduces rows continues with values of rows; what elements need of these is a temporary, too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, DType, MemIndex, Reduce, Source
from headrace_host.compiler.programs import Step
from headrace_host.errors import CompileError
from headrace_host.kernels.trace import ELEMENTS, Constant, Kernel, Stream, ordered, streams

SEARCH = 20_000
"""States of the search for an order after which a pass counts as impossible."""


@dataclass(frozen=True)
class Read:
    """A stream of a pass: an input or temporary, read ``shift`` rows and columns away."""

    stream: Stream
    shift: tuple[int, int]


@dataclass(frozen=True)
class Operation:
    """The lane operation of ``lane`` with the places of its operands, whose result or its reduction is ``stream``;
    ``to_y``: it replaces y.
    """

    stream: Stream
    lane: Stream
    sources: tuple[Source, ...]
    to_y: bool


@dataclass(frozen=True)
class Pass:
    """Computes ``result`` from one or two reads, which start as x and y; ``output`` names it, unless a temporary."""

    result: Stream
    reads: tuple[Read, ...]
    operations: tuple[Operation | None, ...]
    """None: the column passes on."""
    output: str = ""

    @property
    def reduces(self) -> bool:
        """Whether beats of elements become one a row."""
        return any(o is not None and o.stream.reduce for o in self.operations)

    @property
    def of_rows(self) -> bool:
        """Whether a beat is the value of a row from the start."""
        return self.result.of_row and not self.reduces

    def contexts(self, config: NpuConfig) -> int:
        """Times the beats go through the columns."""
        return -(-len(self.operations) // config.columns)


def passes(kernel: Kernel, config: NpuConfig, *, contexts: int | None = None) -> list[Pass]:
    """The passes of a kernel in order, each of at most ``contexts`` contexts; the last gives its last result.

    Raises:
        CompileError: when an operation does not fit the machine.
    """
    if config.sum_column is None and any(stream.reduce is Reduce.FSUM for stream in kernel.streams):
        raise CompileError(f"kernel '{kernel.name}': machine '{config.name}' cannot add fp32 of a row; set float_sum")
    limit = config.columns * min(contexts or config.contexts, config.contexts)
    stored = {id(stream) for stream in kernel.inputs}
    found: list[Pass] = []
    for result, (name, element) in zip(kernel.results, kernel.result_elements.items(), strict=True):
        found += _passes_of(result, stored, kernel, config, limit)
        found[-1] = replace(found[-1], output=name)
        if ELEMENTS[element] is DType.B32:  # others lose bits
            stored.add(id(result))
    return found


def _passes_of(result: Stream, stored: set[int], kernel: Kernel, config: NpuConfig, limit: int) -> list[Pass]:
    """Passes of at most ``limit`` columns to ``result``, whose temporaries become ``stored``."""
    found: list[Pass] = []
    while True:
        last = _place(result, stored, config, limit)
        if last is not None:
            return [*found, last]
        candidates = []
        for stream in _candidates(result, stored):
            placed = _place(stream, stored, config, limit)
            if placed is not None:
                candidates.append(placed)
        if not candidates:
            raise CompileError(f"kernel '{kernel.name}': machine '{config.name}' has no room for one of its operations")
        # Values of rows first: they take little room and time.
        largest = max(candidates, key=lambda each: (each.result.of_row, len(each.operations)))
        found.append(largest)
        stored.add(id(largest.result))


def _candidates(result: Stream, stored: set[int]) -> list[Stream]:
    """What could be a temporary: operations that are not stored, reached without going through what is."""
    found: dict[int, Stream] = {}
    pending = [result]
    while pending:
        stream = pending.pop()
        if id(stream) in stored or id(stream) in found:
            continue
        found[id(stream)] = stream
        pending += streams(stream.operands)
    return [s for s in ordered(result) if id(s) in found and s is not result and not s.is_shifted]


def _cone(result: Stream, stored: set[int]) -> tuple[list[Operation], list[Stream]] | None:
    """(operations without places, streams read) of a pass for ``result``; None when a shifted stream is not stored yet.

    The operation before a reduction takes place in its column when nothing else needs its result.
    """
    found: list[Stream] = []
    reads: list[Stream] = []
    seen: set[int] = set()

    def visit(stream: Stream) -> bool:
        if id(stream) in seen:
            return True
        seen.add(id(stream))
        if id(stream) in stored:
            reads.append(stream)
            return True
        if stream.is_shifted:
            reads.append(stream)
            return id(streams(stream.operands)[0]) in stored
        complete = all([visit(each) for each in streams(stream.operands)])
        found.append(stream)
        return complete

    if not visit(result):
        return None
    made = {id(stream) for stream in found}
    uses = Counter(id(operand) for stream in found for operand in streams(stream.operands))
    operations = []
    for stream in found:
        before = streams(stream.operands)[0] if stream.reduce else stream
        fuses = id(before) in made and uses[id(before)] == 1 and not before.reduce
        operations.append(Operation(stream, before if fuses else stream, (), False))
    fused = {id(operation.lane) for operation in operations if operation.lane is not operation.stream}
    return [operation for operation in operations if id(operation.stream) not in fused], reads


def _place(result: Stream, stored: set[int], config: NpuConfig, limit: int) -> Pass | None:
    cone = _cone(result, stored)
    if cone is None or len(cone[1]) > 2:
        return None
    operations, leaves = cone
    reads = tuple(
        Read(streams(s.operands)[0], s.shift) if id(s) not in stored and s.is_shifted else Read(s, (0, 0))
        for s in leaves
    )
    order = (
        _order(result, operations, leaves, config) if operations else [Operation(result, result, (Source.X,), False)]
    )
    if order is None:
        return None
    spread = _spread(order, config)
    if spread is None or len(spread) > limit:
        return None
    return Pass(result, reads, tuple(spread))


def _order(
    result: Stream, operations: list[Operation], leaves: list[Stream], config: NpuConfig
) -> list[Operation] | None:
    """An order in which every value is in x or y from its making to its last use, and the result ends in x.

    After a reduction only its result is left; FSUM comes early enough for the column that has it.
    """
    users: dict[int, set[int]] = {}
    for number, operation in enumerate(operations):
        for operand in streams(operation.lane.operands):
            users.setdefault(id(operand), set()).add(number)
    failed: set[tuple[int, int, frozenset[int]]] = set()

    def allowed(number: int, done: frozenset[int]) -> bool:
        stream, reduced = operations[number].stream, any(operations[n].stream.reduce for n in done)
        late = stream.reduce is Reduce.FSUM and len(done) > (config.sum_column or 0)
        return not late and (stream.of_row or not reduced)

    def search(x: int, y: int, done: frozenset[int]) -> list[Operation] | None:
        if len(done) == len(operations):
            return [] if x == id(result) else None
        state = (x, y, done)
        if state in failed or len(failed) > SEARCH:
            return None
        for number, operation in enumerate(operations):
            needed = {id(each) for each in streams(operation.lane.operands)}
            if number in done or not needed <= {x, y} or not allowed(number, done):
                continue
            after = done | {number}
            live = {value for value in (x, y) if users.get(value, set()) - after}
            if operation.stream.reduce and live:  # lanes that the last beat of a row lacks would miss it
                continue
            for to_y in (False, True):
                kept = (x, id(operation.stream)) if to_y else (id(operation.stream), y)
                if not live <= set(kept):
                    continue
                rest = search(*kept, after)
                if rest is not None:
                    sources = tuple(_source(each, x) for each in operation.lane.operands)
                    return [replace(operation, sources=sources, to_y=to_y), *rest]
        failed.add(state)
        return None

    return search(id(leaves[0]), id(leaves[1]) if len(leaves) == 2 else 0, frozenset())


def _source(operand: Stream | Constant, x: int) -> Source:
    if isinstance(operand, Constant):
        return Source.IDX if operand.is_index else Source.MEM if operand.immediate is None else Source.IMM
    return Source.X if id(operand) == x else Source.Y


def _spread(order: list[Operation], config: NpuConfig) -> list[Operation | None] | None:
    """One column each; a column's memory holds one table or vector in a pass, so the next moves on, and FSUM is in the
    column that has it.
    """
    taken: set[int] = set()
    sums = [number for number, operation in enumerate(order) if operation.stream.reduce is Reduce.FSUM]
    found: list[Operation | None] = [None] * ((config.sum_column or 0) - sums[0]) if sums else []
    for operation in order:
        if Source.MEM in operation.sources:
            if len(taken) == config.columns:
                return None
            while len(found) % config.columns in taken:
                found.append(None)
            taken.add(len(found) % config.columns)
        found.append(operation)
    return found


def steps(each: Pass, config: NpuConfig, repeats: int) -> list[Step]:
    """The lane operations of a pass; vectors of channels are repeated ``repeats`` times, for the pixels of a row."""
    return [Step(op=DataflowOp.PASS) if o is None else _step(o, config, repeats) for o in each.operations]


def step_of(operation: Operation, *, vector: str | None = None) -> Step:
    """The lane operation of a column; operand MEM is ``vector``, if that is given."""
    lane, how = operation.lane, operation.stream.reduce
    sources = (*operation.sources, Source.X)[:2]
    step = Step(op=lane.op, a=sources[0], b=sources[1], to_y=operation.to_y, sh=lane.sh, vector=vector)
    if how:
        step = replace(step, reduce=how, row=True, across=how is not Reduce.FSUM)
    for operand in lane.operands:
        if isinstance(operand, Constant) and operand.immediate is not None:
            step = replace(step, imm=operand.immediate)
    return step


def _step(operation: Operation, config: NpuConfig, repeats: int) -> Step:
    step, lanes = step_of(operation), config.vector_lanes
    for operand in operation.lane.operands:
        if not isinstance(operand, Constant) or not operand.patterns.ndim:
            continue
        if operand.is_table:
            index = MemIndex.X if step.b is Source.X else MemIndex.Y
            content = np.repeat(operand.patterns[:, None], lanes, axis=1)
            step = replace(step, table=content, index=index)
        else:
            row = np.tile(operand.patterns, repeats)
            content = np.zeros((-(-len(row) // lanes), lanes), np.int32)
            content.reshape(-1)[: len(row)] = row
            step = replace(step, table=content, index=MemIndex.IDX)
    return step
