"""What moves through the dataflow array."""

from enum import IntEnum

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from headrace.config import index_bits
from headrace.isa import DType

__all__ = [
    "CHANNEL_BITS",
    "IDX_BITS",
    "PIXEL_BITS",
    "Queue",
    "View",
    "beat_layout",
    "coordinates_layout",
    "operands_layout",
    "tag_layout",
    "vector_layout",
]

IDX_BITS = 18
"""Index of a beat, 17 bits, or the word of a column memory beyond its end that the beat asked for."""
PIXEL_BITS = 26
"""Signed pixel number as the walkers keep it; wider than any legal pixel so that a wrong one is seen."""
CHANNEL_BITS = 24
"""Signed channel byte, likewise."""


class Queue(IntEnum):
    """Whose pass a beat belongs to."""

    EPILOGUE = 0
    VECTOR = 1


# The part of a view that address generation needs beside pixel and channel.
View = data.StructLayout({"base": 16, "plane": 16, "shift": 2, "type": DType})


def vector_layout(lanes: int) -> data.ArrayLayout:
    """One 32-bit element a lane."""
    return data.ArrayLayout(unsigned(32), lanes)


def tag_layout(*, lanes: int, contexts: int) -> data.StructLayout:
    """What a column must know about a beat beside its operands.

    present: the slot is taken. valid: it still carries a beat; a reduction that swallows the beat clears it, and the
    slot travels on so that its credit and its `last` arrive. last: last of the pass. ends: last of its row, or of what
    was merged into it. bad: it asked for a word beyond a column's memory, whose address is now its idx. queue: `Queue`.
    wrap: the last column sends it to the gasket buffer. lanes: number of valid lanes, from lane 0.
    """
    return data.StructLayout(
        {
            "present": 1,
            "valid": 1,
            "last": 1,
            "ends": 1,
            "bad": 1,
            "queue": 1,
            "wrap": 1,
            "context": index_bits(contexts),
            "idx": IDX_BITS,
            "lanes": Shape.cast(range(lanes + 1)),
        }
    )


def beat_layout(*, lanes: int, contexts: int) -> data.StructLayout:
    """A beat between columns."""
    return data.StructLayout(
        {
            "tag": tag_layout(lanes=lanes, contexts=contexts),
            "x": vector_layout(lanes),
            "y": vector_layout(lanes),
        }
    )


def operands_layout(*, lanes: int, contexts: int) -> data.StructLayout:
    """A beat as a source offers it. ends: last of its row. boundary: after it another queue may go first. index: of its
    command.
    """
    return data.StructLayout(
        {
            "x": vector_layout(lanes),
            "y": vector_layout(lanes),
            "idx": IDX_BITS,
            "lanes": Shape.cast(range(lanes + 1)),
            "last": 1,
            "ends": 1,
            "boundary": 1,
            "context": index_bits(contexts),
            "wraps": 4,
            "index": 16,
        }
    )


def coordinates_layout() -> data.StructLayout:
    """A pixel and a channel byte of a view."""
    return data.StructLayout({"pixel": signed(PIXEL_BITS), "channel": signed(CHANNEL_BITS), "view": View})
