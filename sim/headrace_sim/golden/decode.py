"""From the 128 bytes of a command to checked field values; what was decoded once is kept, for images run again."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_OPCODE, COMMAND_BITS, Cause, Command, Field

from .errors import Fault
from .fields import Fields

__all__ = ["Header", "apply_patches", "checked_fields", "command_of", "header_of"]

_PAYLOAD_WORDS = range(4, COMMAND_BITS // 32)
_KEPT = 1 << 17  # commands


@dataclass(frozen=True)
class Header:
    """What is looked at before a command's patches. stray: the lowest reserved bit that is set, or -1."""

    wait: int
    signal: int
    patches: tuple[int, int]
    stray: int


def _extract(word: int, field: Field) -> int:
    value = (word >> field.offset) & ((1 << field.width) - 1)
    if field.signed and value >> (field.width - 1):
        value -= 1 << field.width
    return value


def command_of(raw: bytes) -> Command:
    """The command in 128 bytes.

    Raises:
        Fault: MALFORMED at bit 0 for an unknown opcode.
    """
    if raw[0] not in BY_OPCODE:
        raise Fault(Cause.MALFORMED, 0)
    return BY_OPCODE[raw[0]]


@lru_cache(_KEPT)
def header_of(raw: bytes) -> Header:
    """The header of a command that exists."""
    command, bits = command_of(raw), int.from_bytes(raw, "little")
    wait, signal, first, second = (_extract(bits, command[n]) for n in ("wait", "signal", "patch0", "patch1"))
    stray = bits & ~command.defined_mask
    return Header(wait, signal, (first, second), (stray & -stray).bit_length() - 1)


def apply_patches(raw: bytes, patches: tuple[int, int], scalars: np.ndarray) -> bytes:
    """The command after `payload word += scalar << shift` (modulo 2^32) for each enabled patch, in order.

    Raises:
        Fault: MALFORMED at the patch's bit, when it names a word of the header, a register the machine lacks, or has
            bit 15 set.
    """
    if not (patches[0] | patches[1]) & 1:
        return raw
    out = np.frombuffer(raw, "<u4").copy()
    for number, patch in enumerate(patches):
        if not patch & 1:
            continue
        shift, register, word = patch >> 1 & 31, patch >> 6 & 15, patch >> 10 & 31
        if word not in _PAYLOAD_WORDS or register >= len(scalars) or patch >> 15:
            raise Fault(Cause.MALFORMED, 96 + 16 * number)
        out[word] = (int(out[word]) + (int(scalars[register]) << shift)) & 0xFFFFFFFF
    return out.tobytes()


@lru_cache(_KEPT)
def checked_fields(raw: bytes, config: NpuConfig) -> Fields:
    """Every field of a patched command by name.

    Raises:
        Fault: MALFORMED at the bit offset of the first field that is outside its limits on this machine.
    """
    command, bits = command_of(raw), int.from_bytes(raw, "little")
    values = {f.name: _extract(bits, f) for f in command.fields}
    for field in command.fields:
        low, high = field.limits(config)
        if not low <= values[field.name] <= high:
            raise Fault(Cause.MALFORMED, field.offset)
    return Fields(values)
