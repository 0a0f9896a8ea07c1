"""From the 128 bytes of a command to checked field values."""

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_OPCODE, COMMAND_BITS, Cause, Command, Field

from .errors import Fault

__all__ = ["apply_patches", "check_limits", "check_reserved", "command_of", "field_values"]

_PAYLOAD_WORDS = range(4, COMMAND_BITS // 32)


def _extract(word: int, field: Field) -> int:
    value = (word >> field.offset) & ((1 << field.width) - 1)
    if field.signed and value >> (field.width - 1):
        value -= 1 << field.width
    return value


def command_of(words: np.ndarray) -> Command:
    """The command that 32 little-endian words hold.

    Raises:
        Fault: MALFORMED at bit 0 for an unknown opcode.
    """
    opcode = int(words[0]) & 0xFF
    if opcode not in BY_OPCODE:
        raise Fault(Cause.MALFORMED, 0)
    return BY_OPCODE[opcode]


def field_values(command: Command, words: np.ndarray) -> dict[str, int]:
    """Every field of the command by name, unchecked."""
    word = int.from_bytes(words.astype("<u4").tobytes(), "little")
    return {f.name: _extract(word, f) for f in command.fields}


def check_reserved(command: Command, words: np.ndarray) -> None:
    """Every bit outside the command's fields is zero.

    Raises:
        Fault: MALFORMED at the lowest such bit that is set.
    """
    stray = int.from_bytes(words.astype("<u4").tobytes(), "little") & ~command.defined_mask
    if stray:
        raise Fault(Cause.MALFORMED, (stray & -stray).bit_length() - 1)


def apply_patches(words: np.ndarray, patches: tuple[int, int], scalars: np.ndarray) -> np.ndarray:
    """The words after `payload word += scalar << shift` (modulo 2^32) for each enabled patch, in order.

    Raises:
        Fault: MALFORMED at the patch's bit, when it names a word of the header, a register the machine lacks, or has
            bit 15 set.
    """
    out = words.copy()
    for number, patch in enumerate(patches):
        if not patch & 1:
            continue
        shift, register, word = patch >> 1 & 31, patch >> 6 & 15, patch >> 10 & 31
        if word not in _PAYLOAD_WORDS or register >= len(scalars) or patch >> 15:
            raise Fault(Cause.MALFORMED, 96 + 16 * number)
        out[word] = (int(out[word]) + (int(scalars[register]) << shift)) & 0xFFFFFFFF
    return out


def check_limits(command: Command, values: dict[str, int], config: NpuConfig) -> None:
    """Every field is within its limits on this machine.

    Raises:
        Fault: MALFORMED at the bit offset of the first field that is not.
    """
    for field in command.fields:
        low, high = field.limits(config)
        if not low <= values[field.name] <= high:
            raise Fault(Cause.MALFORMED, field.offset)
