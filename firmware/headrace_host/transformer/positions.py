"""What depends on the position in a text: scalar registers, so that one command image serves every position."""

from __future__ import annotations

from enum import IntEnum

from headrace.config import NpuConfig
from headrace_host.compiler.packing import GROUP_CODES


class Register(IntEnum):
    """Scalar registers, which the host writes before the doorbell. Counts are less one: they are added to a field of 1.

    Keys are seen up to the last token of this run; rows over keys are padded to whole groups of 32.
    """

    POSITION = 0  # of the first token of this run
    KEYS = 1  # tokens seen, those of this run included
    KEY_TILES = 2  # n tiles of C keys, less one
    VALUE_WORDS = 3  # words of 2K keys in the padded row, less one
    BEATS = 4  # of L elements of a padded row, less one
    GROUPS = 5  # of 32 elements of a padded row, less one
    GROUP_BEATS = 6  # of L groups, less one
    VECTOR_BYTES = 7  # of a padded row of fp32, less 4
    KEY_BYTES = 8  # from the start of a head's keys to this run's first
    VALUE_BYTES = 9  # likewise of values


def registers(config: NpuConfig, position: int, tokens: int, head_width: int) -> dict[int, int]:
    """Values of all registers for ``tokens`` tokens from ``position`` on."""
    keys = position + tokens
    groups = -(-keys // GROUP_CODES)
    padded = groups * GROUP_CODES
    tile, word = config.cols, config.word_bytes
    values = {
        Register.POSITION: position,
        Register.KEYS: keys,
        Register.KEY_TILES: -(-keys // tile) - 1,
        Register.VALUE_WORDS: padded // word - 1,
        Register.BEATS: padded // config.vector_lanes - 1,
        Register.GROUPS: groups - 1,
        Register.GROUP_BEATS: -(-groups // config.vector_lanes) - 1,
        Register.VECTOR_BYTES: 4 * padded - 4,
        Register.KEY_BYTES: position // tile * tile * head_width + position % tile * word,
        Register.VALUE_BYTES: position // word * tile * word + position % word,
    }
    return {int(register): value for register, value in values.items()}
