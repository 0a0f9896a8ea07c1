"""Command streams: recorded by layer, put in ring order, and ordered by tokens derived from what commands touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_NAME, Engine
from headrace_host.errors import CompileError

DDR_GRANULE = 64
"""Bytes of DDR tracked as one unit."""

STRIP_LAYERS = 4
"""Layers whose strips are told apart."""

MAX_COMMANDS = 1 << 15
"""Commands of the largest ring; an image is written to the ring as a whole."""

_ENGINES = len(Engine) - 1  # CONTROL needs no tokens: END waits for everything

# Engines that move data in one direction execute overlapping commands in order without tokens of their own.
_ONE_WAY = (Engine.LOAD, Engine.WEIGHT, Engine.STORE, Engine.MAC)


class Space(IntEnum):
    """Memories whose hazards are tracked, and the unit of each."""

    SPAD = 0  # words of a bank, the same in all banks
    COLUMN = 1  # column * column_words + word
    CONTEXT = 2  # contexts
    DDR = 3  # granules of `DDR_GRANULE` bytes from the start of the activation area
    SHIFT = 4  # words of the table of group offset shifts
    STRIP = 5  # turns of the strips of a layer, two a layer; no memory, but it keeps loads from running far ahead


Span = tuple[int, int]


@dataclass(frozen=True)
class Access:
    """Units ``[start, end)`` of ``space`` that a command reads or writes."""

    space: Space
    spans: tuple[Span, ...]
    write: bool


@dataclass(frozen=True, eq=False)
class Planned:
    """A command before it has its place and tokens.

    ``early``: it needs nothing that so many layers before compute (weights, constants) and may move ahead of them.
    """

    name: str
    label: int
    accesses: tuple[Access, ...]
    values: dict[str, int]
    early: int = 0

    @property
    def engine(self) -> Engine:
        """The engine that executes it."""
        return BY_NAME[self.name].engine


class Recorder:
    """Collects commands in the order of layers."""

    def __init__(self) -> None:
        self.commands: list[Planned] = []

    def emit(self, name: str, label: int, accesses: Sequence[Access] = (), **values: int) -> None:
        """Append a command with its field ``values``; ``label`` is the layer's number."""
        self.commands.append(Planned(name, label, tuple(accesses), {**values, "label": label}))

    def emit_early(
        self, name: str, label: int, accesses: Sequence[Access] = (), *, layers: int = 1, **values: int
    ) -> None:
        """Append a command that may move ahead of the ``layers`` before (see `Planned`)."""
        self.commands.append(Planned(name, label, tuple(accesses), {**values, "label": label}, early=layers))


def schedule(commands: Sequence[Planned]) -> list[Planned]:
    """Move early commands of each layer behind the first drain of a layer before, so that they run beside it.

    They go as far as they may; a command stays in its place when something in between touches the same memory, and
    streamed weights keep their order.
    """
    out: list[Planned] = []
    starts: list[int] = []  # where each layer starts
    anchors: list[int] = []  # where early commands may go: behind the first drain of each layer, in the order they come
    label = -1
    for command in commands:
        if command.label != label:
            label = command.label
            if starts:
                drains = (i for i in range(starts[-1], len(out)) if out[i].engine in (Engine.EPILOGUE, Engine.VECTOR))
                anchors.append(next(drains, len(out) - 1) + 1)
            starts.append(len(out))
        before = [anchor for anchor in anchors[-command.early :] if anchor < starts[-1]] if command.early else []
        place = _earliest(command, out, before)
        if place is None:
            out.append(command)
            continue
        out.insert(place, command)
        starts = [start + (start > place) for start in starts]
        anchors = [anchor + (anchor >= place) for anchor in anchors]
    return out


def _earliest(command: Planned, out: Sequence[Planned], anchors: Sequence[int]) -> int | None:
    """The first of ``anchors`` such that ``command`` may go ahead of everything from there on."""
    free = len(out)
    while free and not _conflict(command, out[free - 1]) and free > min(anchors, default=free):
        free -= 1
    return next((anchor for anchor in anchors if anchor >= free), None)


def _conflict(a: Planned, b: Planned) -> bool:
    """Whether the two commands must keep their order."""
    if a.engine is Engine.WEIGHT and b.engine is Engine.WEIGHT:
        return True
    return any(
        x.space == y.space and (x.write or y.write) and p[0] < q[1] and q[0] < p[1]
        for x in a.accesses
        for y in b.accesses
        for p in x.spans
        for q in y.spans
    )


class TokenAssigner:
    """Gives commands in ring order the tokens that order what touches the same memory.

    A token belongs to one pair of engines and counts: the n-th wait of the consumer takes the n-th signal of the
    producer. A wait is only added for a producer command later than the last one waited for, so both sequences rise.
    """

    def __init__(self, config: NpuConfig, ddr_granules: int) -> None:
        self._config = config
        columns = config.columns * config.column_words
        sizes = (config.bank_words, columns, config.contexts, max(1, ddr_granules), config.kc_words, 2 * STRIP_LAYERS)
        # Index of the last command of each engine that read (0) or wrote (1) a unit; -1 for none.
        self._last = [np.full((2, _ENGINES, size), -1, np.int32) for size in sizes]
        self._values: list[dict[str, int]] = []
        self._tokens: dict[tuple[Engine, Engine], int] = {}
        self._synced: dict[tuple[Engine, Engine], int] = {}

    def assign(self, commands: Sequence[Planned]) -> list[dict[str, int]]:
        """The fields of each command, tokens included."""
        if len(commands) > MAX_COMMANDS:
            raise CompileError(f"the network needs {len(commands)} commands, a ring holds {MAX_COMMANDS}; split it")
        for index, command in enumerate(commands):
            self._values.append({**command.values, "wait": 0, "signal": 0})
            if command.engine is Engine.CONTROL:
                continue
            for producer, needed in self._hazards(command.engine, command.accesses).items():
                self._order(producer, needed, command.engine, index)
            for access in command.accesses:
                for start, end in access.spans:
                    self._last[access.space][int(access.write), command.engine, start:end] = index
        return self._values

    def _hazards(self, engine: Engine, accesses: Sequence[Access]) -> dict[Engine, int]:
        """The latest command of each engine that must be complete: read after write, write after read or write."""
        needed: dict[Engine, int] = {}
        for access in accesses:
            last = self._last[access.space]
            for start, end in access.spans:
                if not 0 <= start < end <= last.shape[2]:
                    raise ValueError(f"{access.space.name} {start}..{end} is outside the memory")
                latest = last[1, :, start:end].max(axis=1)
                if access.write:
                    latest = np.maximum(latest, last[0, :, start:end].max(axis=1))
                for producer in range(_ENGINES):
                    if producer == engine and engine in _ONE_WAY:
                        continue
                    if latest[producer] >= 0:
                        key = Engine(producer)
                        needed[key] = max(needed.get(key, -1), int(latest[producer]))
        return needed

    def _order(self, producer: Engine, needed: int, consumer: Engine, index: int) -> None:
        pair = (producer, consumer)
        if self._synced.get(pair, -1) >= needed:
            return
        token = self._tokens.setdefault(pair, len(self._tokens))
        if token >= self._config.tokens:
            raise CompileError(f"machine '{self._config.name}' has {self._config.tokens} tokens, too few; raise tokens")
        self._synced[pair] = needed
        self._values[needed]["signal"] |= 1 << token
        self._values[index]["wait"] |= 1 << token
