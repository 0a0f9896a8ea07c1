"""Signatures between blocks. Streams hold valid and payload until transferred and never wait for ready."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.isa import Cause, Command
from headrace.isa.layout import command_layout

__all__ = [
    "ADDR_BITS",
    "SPAD_LATENCY",
    "AccDrain",
    "BurstRead",
    "BurstWrite",
    "ColumnWrite",
    "EnginePort",
    "ErrorLayout",
    "KcWrite",
    "RingRead",
    "RingWrite",
    "SpadBankRead",
    "SpadRead",
    "SpadWrite",
    "cause_shape",
    "issued_layout",
]

ADDR_BITS = 40
SPAD_LATENCY = 2  # cycles from a granted scratchpad read to its data
RING_LATENCY = 2  # cycles from a weight ring read to its data
ACC_LATENCY = 2  # cycles from an accumulator drain read to its data

cause_shape = unsigned(max(Cause).bit_length())


def issued_layout(command: Command) -> data.StructLayout:
    """A command handed to its engine: its index in ring order and its (already patched and checked) fields."""
    return data.StructLayout({"index": 16, "cmd": command_layout(command)})


ErrorLayout = data.StructLayout({"valid": 1, "cause": cause_shape, "index": 16, "address": ADDR_BITS})


class EnginePort(wiring.Signature):
    """Control (initiator) to engine; an engine has the member `In(EnginePort(...))`.

    issue: the next command; the engine accepts (ready) when it can begin, maybe before earlier ones completed.
    done: one pulse for each completed command, in order of issue.
    busy: a command is in progress. error: valid for at least one cycle; the engine then stays as it is until reset.
    halt: stop starting new memory accesses; control resets the engine once the bus is quiet.
    """

    def __init__(self, command: Command) -> None:
        super().__init__(
            {
                "issue": Out(stream.Signature(issued_layout(command))),
                "done": In(1),
                "busy": In(1),
                "error": In(ErrorLayout),
                "halt": Out(1),
            }
        )


class BurstRead(wiring.Signature):
    """Client (initiator) of the AXI reader.

    req: one legal burst (address aligned to a beat, 1..burst_beats beats, inside a 4 KiB page). The client has room for
    every beat it asks for: `beat_valid` cannot be refused. Beats come in request order. `bad` is set with the last
    beat of a burst in which any response was an error; the reader reports it itself (with the request's `index`).
    """

    def __init__(self, *, axi_bytes: int) -> None:
        super().__init__(
            {
                "req": Out(stream.Signature(data.StructLayout({"address": ADDR_BITS, "beats": 9, "index": 16}))),
                "beat_valid": In(1),
                "beat_data": In(axi_bytes * 8),
                "beat_last": In(1),
                "bad": In(1),
            }
        )


class BurstWrite(wiring.Signature):
    """Client (initiator) of the AXI writer.

    data: beats of the bursts in order, sent before or with their request; req: one legal burst, whose beats the writer
    already holds or will receive without the client waiting for anything else. done: one pulse a burst response.
    """

    def __init__(self, *, axi_bytes: int) -> None:
        super().__init__(
            {
                "req": Out(stream.Signature(data.StructLayout({"address": ADDR_BITS, "beats": 9, "index": 16}))),
                "data": Out(stream.Signature(data.StructLayout({"data": axi_bytes * 8, "strb": axi_bytes}))),
                "done": In(1),
            }
        )


class SpadRead(wiring.Signature):
    """One-word scratchpad read client: `data` is valid SPAD_LATENCY cycles after the request transfers."""

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        super().__init__(
            {
                "req": Out(stream.Signature(data.StructLayout({"bank": index_bits(banks), "addr": index_bits(words)}))),
                "data": In(word_bytes * 8),
            }
        )


class SpadBankRead(wiring.Signature):
    """The MAC array's port on one bank: never refused; `data` and the word's activation shift `ka` SPAD_LATENCY cycles
    after `en`."""

    def __init__(self, *, words: int, word_bytes: int) -> None:
        super().__init__({"en": Out(1), "addr": Out(index_bits(words)), "data": In(word_bytes * 8), "ka": In(3)})


class SpadWrite(wiring.Signature):
    """One-word scratchpad write client; `mask` enables bytes, `ka` becomes the word's activation shift (whatever the
    mask). Visible to reads requested after the transfer."""

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        super().__init__(
            {
                "req": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "bank": index_bits(banks),
                                "addr": index_bits(words),
                                "data": word_bytes * 8,
                                "mask": word_bytes,
                                "ka": 3,
                            }
                        )
                    )
                )
            }
        )


class RingWrite(wiring.Signature):
    """WEIGHT engine (initiator) to ring: beats of entries in order; never refused, for the engine asked `free` first.

    data: one AXI beat, the next of the current entry (codes, then scales if `scales`); tag of the entry; scales: the
    entry carries group scales, the same in all its beats; free: entries that can still be reserved; reserve: number of
    entries the engine takes this cycle (before it requests their bursts).
    """

    def __init__(self, *, axi_bytes: int, entries: int) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "data": Out(axi_bytes * 8),
                "tag": Out(8),
                "scales": Out(1),
                "free": In(range(entries + 1)),
                "reserve": Out(range(entries + 1)),
            }
        )


class RingRead(wiring.Signature):
    """MAC array (initiator) to ring: entry `offset` counted from the oldest resident entry.

    level: complete entries resident. codes[c] (2K bytes a column), scales[c] (for each of `groups` groups sd in the low
    and sm in the high byte; zero if the entry carries none) and tag are valid RING_LATENCY cycles after `en`.
    release: number of oldest entries given up this cycle (0 or more, at most level).
    """

    def __init__(self, *, cols: int, word_bytes: int, entries: int, groups: int) -> None:
        super().__init__(
            {
                "en": Out(1),
                "offset": Out(index_bits(entries)),
                "codes": In(data.ArrayLayout(word_bytes * 8, cols)),
                "scales": In(data.ArrayLayout(16 * groups, cols)),
                "tag": In(8),
                "level": In(range(entries + 1)),
                "release": Out(range(entries + 1)),
            }
        )


class AccDrain(wiring.Signature):
    """Dataflow array (initiator) reads finished accumulator tiles.

    tile: stream of finished tiles (buffer number, accumulators used), oldest first; transferring it, with the tile's
    last read, frees the buffer, which the array leaves as it is for ACC_LATENCY cycles more. en/buffer/t/row: read one
    row of C accumulators, valid ACC_LATENCY cycles later in `data`; never refused.
    """

    def __init__(self, *, rows: int, cols: int, accs: int) -> None:
        super().__init__(
            {
                "tile": In(stream.Signature(data.StructLayout({"buffer": 1, "t_used": range(accs + 1)}))),
                "en": Out(1),
                "buffer": Out(1),
                "t": Out(index_bits(accs)),
                "row": Out(index_bits(rows)),
                "data": In(data.ArrayLayout(32, cols)),
            }
        )


class KcWrite(wiring.Signature):
    """LOAD engine (initiator) to the MAC array's table of group offset shifts: one element a cycle, never refused.

    element: flat element number, see the LOAD command; data: eight shifts, 4 bits each (bit 3 unused).
    """

    def __init__(self, *, elements: int) -> None:
        super().__init__({"en": Out(1), "element": Out(index_bits(elements)), "data": Out(32)})


class ColumnWrite(wiring.Signature):
    """LOAD engine (initiator) to the dataflow array's memories: an aligned group of elements a cycle, never refused.

    A group is `elements` (a power of two) 32-bit elements of one word of a column memory, at most 4 of a context.
    context: 1 writes contexts, 0 column memories; element: flat number, see the LOAD command, of the group's first
    element; data: element i of the group; mask: the elements to write, 0: none.
    """

    def __init__(self, *, elements: int) -> None:
        super().__init__(
            {"context": Out(1), "element": Out(24), "data": Out(data.ArrayLayout(32, elements)), "mask": Out(elements)}
        )
