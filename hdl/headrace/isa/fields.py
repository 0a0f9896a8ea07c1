"""Vocabulary of the command description: fields packed into fixed-size commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from headrace.config import NpuConfig

__all__ = ["COMMAND_BITS", "COMMAND_BYTES", "Command", "Engine", "Field", "pack"]

COMMAND_BYTES = 128
COMMAND_BITS = COMMAND_BYTES * 8

Limit = int | Callable[[NpuConfig], int]


class Engine(IntEnum):
    """Engines, each with its own command queue; CONTROL executes at once, in ring order."""

    LOAD = 0
    WEIGHT = 1
    STORE = 2
    MAC = 3
    EPILOGUE = 4
    VECTOR = 5
    CONTROL = 6


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a command.

    `minimum` and `maximum` are checked by the machine before an engine starts (cause MALFORMED); either may be a
    function of the machine. `offset` is the bit position in the command, assigned by `pack`.
    """

    name: str
    width: int
    doc: str
    signed: bool = False
    minimum: Limit | None = None
    maximum: Limit | None = None
    enum: type[IntEnum] | None = None
    offset: int = -1

    def limits(self, config: NpuConfig) -> tuple[int, int]:
        """Smallest and largest legal value on this machine."""
        low = -(1 << (self.width - 1)) if self.signed else 0
        high = (1 << (self.width - (1 if self.signed else 0))) - 1
        if self.enum is not None:
            high = max(self.enum)
        if self.minimum is not None:
            low = self.minimum(config) if callable(self.minimum) else self.minimum
        if self.maximum is not None:
            high = min(high, self.maximum(config) if callable(self.maximum) else self.maximum)
        return low, high


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: opcode, the engine that executes it, its fields (header included) and its meaning."""

    name: str
    opcode: int
    engine: Engine
    doc: str
    loop_nest: str
    fields: tuple[Field, ...] = field(default=())

    def __getitem__(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(f"{self.name} has no field {name!r}")

    @property
    def defined_mask(self) -> int:
        """Bits that belong to a field; every other bit must be zero."""
        return sum(((1 << f.width) - 1) << f.offset for f in self.fields)


def pack(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Assign offsets in order: a field of up to 32 bits never straddles a 32-bit word, a wider one starts on a word."""
    out, at = [], 0
    for f in fields:
        if at % 32 and (f.width > 32 or at % 32 + f.width > 32):
            at += 32 - at % 32
        out.append(Field(**{**f.__dict__, "offset": at}))
        at += f.width
    if at > COMMAND_BITS:
        raise ValueError(f"fields need {at} bits, a command has {COMMAND_BITS}")
    return tuple(out)
