"""Placement of a traced kernel: passes of at most two streams, in which at most two values live between columns.

Where an expression needs more, a part of it becomes a pass of its own, whose result is a temporary of 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, MemIndex, Source
from headrace_host.compiler.programs import Step
from headrace_host.errors import CompileError
from headrace_host.kernels.trace import Constant, Kernel, Stream, ordered, streams

SEARCH = 20_000
"""States of the search for an order after which a pass counts as impossible."""


@dataclass(frozen=True)
class Read:
    """A stream of a pass: an input or temporary, read ``shift`` rows and columns away."""

    stream: Stream
    shift: tuple[int, int]


@dataclass(frozen=True)
class Operation:
    """A lane operation with the places of its operands; ``to_y``: its result replaces y."""

    stream: Stream
    sources: tuple[Source, ...]
    to_y: bool


@dataclass(frozen=True)
class Pass:
    """Computes ``result`` from one or two reads, which start as x and y."""

    result: Stream
    reads: tuple[Read, ...]
    operations: tuple[Operation | None, ...]
    """None: the column passes on."""

    def contexts(self, config: NpuConfig) -> int:
        """Times the beats go through the columns."""
        return -(-len(self.operations) // config.columns)


def passes(kernel: Kernel, config: NpuConfig) -> list[Pass]:
    """The passes of a kernel in order; the last gives its result.

    Raises:
        CompileError: when an operation does not fit the machine.
    """
    stored = {id(stream) for stream in kernel.inputs}
    found: list[Pass] = []
    while True:
        last = _place(kernel.result, stored, config)
        if last is not None:
            return [*found, last]
        candidates = []
        for stream in _candidates(kernel.result, stored):
            placed = _place(stream, stored, config)
            if placed is not None:
                candidates.append(placed)
        if not candidates:
            raise CompileError(f"kernel '{kernel.name}': machine '{config.name}' has no room for one of its operations")
        largest = max(candidates, key=lambda each: len(each.operations))
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


def _cone(result: Stream, stored: set[int]) -> tuple[list[Stream], list[Stream]] | None:
    """(operations, streams read) of a pass for ``result``; None when a shifted stream is not stored yet."""
    operations: list[Stream] = []
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
        operations.append(stream)
        return complete

    return (operations, reads) if visit(result) else None


def _place(result: Stream, stored: set[int], config: NpuConfig) -> Pass | None:
    cone = _cone(result, stored)
    if cone is None or len(cone[1]) > 2:
        return None
    operations, leaves = cone
    reads = tuple(
        Read(streams(s.operands)[0], s.shift) if id(s) not in stored and s.is_shifted else Read(s, (0, 0))
        for s in leaves
    )
    order = [Operation(result, (Source.X,), False)] if not operations else _order(result, operations, leaves)
    if order is None:
        return None
    spread = _spread(order, config)
    if spread is None or -(-len(spread) // config.columns) > config.contexts:
        return None
    return Pass(result, reads, tuple(spread))


def _order(result: Stream, operations: list[Stream], leaves: list[Stream]) -> list[Operation] | None:
    """An order in which every value is in x or y from its making to its last use, and the result ends in x."""
    users: dict[int, set[int]] = {}
    for number, stream in enumerate(operations):
        for operand in streams(stream.operands):
            users.setdefault(id(operand), set()).add(number)
    failed: set[tuple[int, int, frozenset[int]]] = set()

    def search(x: int, y: int, done: frozenset[int]) -> list[Operation] | None:
        if len(done) == len(operations):
            return [] if x == id(result) else None
        state = (x, y, done)
        if state in failed or len(failed) > SEARCH:
            return None
        for number, stream in enumerate(operations):
            needed = {id(each) for each in streams(stream.operands)}
            if number in done or not needed <= {x, y}:
                continue
            after = done | {number}
            live = {value for value in (x, y) if users.get(value, set()) - after}
            for to_y in (False, True):
                kept = (x, id(stream)) if to_y else (id(stream), y)
                if not live <= set(kept):
                    continue
                rest = search(*kept, after)
                if rest is not None:
                    sources = tuple(_source(each, x) for each in stream.operands)
                    return [Operation(stream, sources, to_y), *rest]
        failed.add(state)
        return None

    return search(id(leaves[0]), id(leaves[1]) if len(leaves) == 2 else 0, frozenset())


def _source(operand: Stream | Constant, x: int) -> Source:
    if isinstance(operand, Constant):
        return Source.MEM if operand.immediate is None else Source.IMM
    return Source.X if id(operand) == x else Source.Y


def _spread(order: list[Operation], config: NpuConfig) -> list[Operation | None] | None:
    """One column each; a column's memory holds one table or vector in a pass, so the next moves on."""
    taken: set[int] = set()
    found: list[Operation | None] = []
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


def _step(operation: Operation, config: NpuConfig, repeats: int) -> Step:
    stream, lanes = operation.stream, config.vector_lanes
    sources = (*operation.sources, Source.X)[:2]
    step = Step(op=stream.op, a=sources[0], b=sources[1], to_y=operation.to_y, sh=stream.sh)
    for operand in stream.operands:
        if not isinstance(operand, Constant):
            continue
        if operand.immediate is not None:
            step = replace(step, imm=operand.immediate)
        elif operand.is_table:
            index = MemIndex.X if sources[1] is Source.X else MemIndex.Y
            content = np.repeat(operand.patterns[:, None], lanes, axis=1)
            step = replace(step, table=content, index=index)
        else:
            row = np.tile(operand.patterns, repeats)
            content = np.zeros((-(-len(row) // lanes), lanes), np.int32)
            content.reshape(-1)[: len(row)] = row
            step = replace(step, table=content, index=MemIndex.IDX)
    return step
