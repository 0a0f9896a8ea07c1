"""A command stream that derives its dependency tokens from what each command reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_NAME, Engine
from headrace_host.compiler.encode import encode_command
from headrace_host.errors import CompileError

DDR_GRANULE = 64
"""Bytes of DDR tracked as one unit."""

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


Span = tuple[int, int]


@dataclass(frozen=True)
class Access:
    """Units ``[start, end)`` of ``space`` that a command reads or writes."""

    space: Space
    spans: tuple[Span, ...]
    write: bool


@dataclass(frozen=True)
class Placed:
    """One command of a stream: its name, fields (tokens excluded until the end) and label."""

    name: str
    values: dict[str, int] = field(default_factory=dict)


class CommandStream:
    """Commands in ring order.

    A token belongs to one pair of engines and counts: the n-th wait of the consumer takes the n-th signal of the
    producer. A wait is only added for a producer command later than the last one waited for, so both sequences rise.
    """

    def __init__(self, config: NpuConfig, ddr_granules: int) -> None:
        self._config = config
        sizes = (config.bank_words, config.columns * config.column_words, config.contexts, max(1, ddr_granules))
        # Index of the last command of each engine that wrote or read a unit; -1 for none.
        self._last = [np.full((2, _ENGINES, size), -1, np.int32) for size in sizes]
        self._commands: list[Placed] = []
        self._tokens: dict[tuple[Engine, Engine], int] = {}
        self._synced: dict[tuple[Engine, Engine], int] = {}

    def __len__(self) -> int:
        return len(self._commands)

    def emit(self, name: str, label: int, accesses: Sequence[Access] = (), **values: int) -> int:
        """Append command ``name`` with ``values``; return its index. Hazards with earlier commands become tokens."""
        index, engine = len(self._commands), BY_NAME[name].engine
        if index >= MAX_COMMANDS:
            raise CompileError(f"the network needs more than {MAX_COMMANDS} commands; split it")
        self._commands.append(Placed(name, {**values, "label": label, "wait": 0, "signal": 0}))
        if engine is not Engine.CONTROL:
            for producer, needed in self._hazards(engine, accesses).items():
                self._order(producer, needed, engine, index)
            for access in accesses:
                for start, end in access.spans:
                    self._last[access.space][int(access.write), engine, start:end] = index
        return index

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
        self._commands[needed].values["signal"] |= 1 << token
        self._commands[index].values["wait"] |= 1 << token

    def commands(self) -> list[Placed]:
        """The commands so far."""
        return list(self._commands)

    def encode(self) -> bytes:
        """The command image."""
        return b"".join(encode_command(self._config, command.name, command.values) for command in self._commands)
