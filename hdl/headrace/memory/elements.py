"""From segments of 32-bit elements to the groups in which they are written."""

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.isa import Dest

from .walk import PIXEL_BITS
from .words import PlaceLayout

__all__ = ["ElementSpace", "ElementWalk", "group_layout"]

SIZE_BITS = 22


@dataclass(frozen=True)
class ElementSpace:
    """A flat space of `elements` elements, of which aligned groups of `group`, a power of two, are written at once."""

    elements: int
    group: int

    def __post_init__(self) -> None:
        if self.group & (self.group - 1) or self.elements % self.group:
            raise ValueError(f"{self.elements} elements do not divide into aligned groups of {self.group}")


def group_layout(*, group: int) -> data.StructLayout:
    """A part of a group: elements offset .. offset+count-1, of which the first has number `element`.

    last: the final part of a marked segment. outside: the space does not have it; groups are inside or outside as a
    whole.
    """
    return data.StructLayout(
        {
            "element": signed(PIXEL_BITS),
            "offset": index_bits(group),
            "count": range(group + 1),
            "outside": 1,
            "last": 1,
        }
    )


class ElementWalk(wiring.Component):
    """Stream of segments (first element as `pixel`, mark) to stream of parts of groups, in order.

    One part a cycle, no gap in between. A segment is `size` elements (1 or more) of the space `dest`; both must be
    stable from the cycle of the first segment until `busy` is low. The first part is there LATENCY cycles after its
    segment.
    """

    LATENCY = 2

    def __init__(self, *, spaces: Mapping[Dest, ElementSpace]) -> None:
        self._spaces = spaces
        super().__init__(
            {
                "dest": In(2),
                "size": In(SIZE_BITS),
                "i": In(stream.Signature(PlaceLayout)),
                "o": Out(stream.Signature(group_layout(group=max(space.group for space in spaces.values())))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limit = Signal(range(max(space.elements for space in self._spaces.values()) + 1))
        group = Signal.like(self.o.p.count)
        with m.Switch(self.dest):
            for dest, space in self._spaces.items():
                with m.Case(dest):
                    m.d.comb += [limit.eq(space.elements), group.eq(space.group)]
        element = Signal(signed(PIXEL_BITS))  # next of the segment
        left = Signal(SIZE_BITS)
        marked = Signal()
        held = Signal()  # elements of the segment are left
        offset = Signal.like(self.o.p.offset)
        room = Signal.like(group)
        final = Signal()
        move = Signal()
        m.d.comb += [
            offset.eq(element & (group - 1)),
            room.eq(group - offset),
            final.eq(left <= room),
            move.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(~held | (move & final)),
            self.busy.eq(held | self.o.valid),
        ]
        with m.If(move):
            m.d.sync += [
                self.o.valid.eq(held),
                *(self.o.p.element.eq(element), self.o.p.offset.eq(offset)),
                self.o.p.count.eq(Mux(final, left, room)),
                self.o.p.outside.eq((element < 0) | (element >= limit)),
                self.o.p.last.eq(final & marked),
                *(element.eq(element + room), left.eq(left - room)),
                held.eq(held & ~final),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [element.eq(self.i.p.pixel), left.eq(self.size), marked.eq(self.i.p.last), held.eq(1)]
        return m
