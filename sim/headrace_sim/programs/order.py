"""Tokens that order commands of different engines where they touch the same bytes, and no others.

The commands in ring order mean what a sequential machine would do. Engines run at the same time, each in order, so a
command needs a token from the last command of another engine that wrote what it reads, or used what it writes, unless
an earlier token already implies it. An engine may begin a command before the one before it has completed; where that
would read stale bytes the engine waits for a token of its own.
"""

import numpy as np

from headrace.isa import Engine

from .operation import Operation
from .space import Space

__all__ = ["add_tokens"]

_ENGINES = len(Engine)
_OWN_ORDER_KEEPS_WRITES = {Engine.LOAD, Engine.EPILOGUE, Engine.VECTOR, Engine.CONTROL}


class _Hazards:
    """Last command, by engine, that read each resource, and the last that wrote it."""

    def __init__(self, space: Space) -> None:
        self._writer = np.full(space.size, -1, np.int32)
        self._readers = np.full((_ENGINES, space.size), -1, np.int32)

    def add(self, index: int, operations: list[Operation]) -> dict[Engine, int]:
        """Record a command; returns the last command of every engine that must have completed before it."""
        operation = operations[index]
        engine, need = operation.engine, dict[Engine, int]()
        for producer in {int(i) for i in np.unique(self._writer[operation.reads])} - {-1}:
            self._require(need, operations[producer].engine, producer)
        for producer in {int(i) for i in np.unique(self._writer[operation.writes])} - {-1}:
            if operations[producer].engine != engine or engine not in _OWN_ORDER_KEEPS_WRITES:
                self._require(need, operations[producer].engine, producer)
        for other in Engine:
            if other != engine and operation.writes.size:
                self._require(need, other, int(self._readers[other, operation.writes].max()))
        if engine == Engine.CONTROL:
            need.pop(Engine.CONTROL, None)  # executed one by one
        if operation.name != "SCALAR":
            for producer_engine in [e for e in need if e == Engine.CONTROL]:
                need.pop(producer_engine)  # a SCALAR executes before later commands are fetched
        self._readers[engine, operation.reads] = index
        self._writer[operation.writes] = index
        return need

    @staticmethod
    def _require(need: dict[Engine, int], engine: Engine, index: int) -> None:
        if index >= 0:
            need[engine] = max(need.get(engine, -1), index)


def add_tokens(operations: list[Operation], space: Space, rng: np.random.Generator) -> None:
    """Set `wait` and `signal` of every operation.

    Each pair of producing and consuming engines gets a token, or two while there are enough; tokens of a pair match
    first to first because both engines take their commands in order.

    Raises:
        ValueError: when the machine has too few tokens.
    """
    for operation in operations:
        operation.wait, operation.signal = set(), set()
    edges = _edges(operations, space)
    pairs = sorted({(operations[p].engine, operations[c].engine) for p, c in edges})
    free = [int(t) for t in rng.permutation(space.config.tokens)]
    if len(pairs) > len(free):
        raise ValueError(f"{len(pairs)} pairs of engines, {len(free)} tokens")
    tokens = {pair: [free.pop()] for pair in pairs}
    for pair in pairs:
        if free and rng.random() < 0.5:
            tokens[pair].append(free.pop())
    for producer, consumer in edges:
        token = int(rng.choice(tokens[operations[producer].engine, operations[consumer].engine]))
        operations[producer].signal.add(token)
        operations[consumer].wait.add(token)


def _edges(operations: list[Operation], space: Space) -> list[tuple[int, int]]:
    """(producer, consumer) pairs in consumer order, none implied by the others."""
    hazards = _Hazards(space)
    edges: list[tuple[int, int]] = []
    complete_at_start = np.full((len(operations), _ENGINES), -1)
    previous: dict[Engine, int] = {}
    for index, operation in enumerate(operations):
        known = complete_at_start[index]
        if operation.engine in previous:
            known[:] = complete_at_start[previous[operation.engine]]
        need = hazards.add(index, operations)
        for engine, producer in sorted(need.items(), key=lambda item: -item[1]):
            if producer > known[engine]:
                edges.append((producer, index))
                np.maximum(known, complete_at_start[producer], out=known)
                known[engine] = producer
        previous[operation.engine] = index
    return edges
