"""Causes for which the machine stops."""

from enum import IntEnum

__all__ = ["Cause"]


class Cause(IntEnum):
    """Error causes; the ERR_ADDRESS register holds what the comment says."""

    NONE = 0
    MALFORMED = 1  # unknown opcode, reserved bit set or field out of range; bit offset of the field in the command
    WINDOW = 2  # DDR access outside the host's windows; the address
    BUS = 3  # AXI error response; address of the burst
    RANGE = 4  # scratchpad, column memory or context address out of range; the word or element address
    RING_TAG = 5  # weight entry with another tag than the MAC command expects; the tag found
    OVERFLOW = 6  # an int32 accumulator overflowed; 0
    TILE = 7  # EPILOGUE shape differs from the MAC tile it drains; row groups of the tile
    WATCHDOG = 8  # nothing completed or moved for the host's number of cycles; 0
    ABORT = 9  # the host asked; 0
    ALIGN = 10  # DDR address not aligned as the command demands; the address
    TOKEN = 11  # a token counter would overflow; the token's number
