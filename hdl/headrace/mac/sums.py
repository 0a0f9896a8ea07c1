"""Which phases of the array make a sum."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision
from headrace.mac.jobs import OPERATION

__all__ = ["SumControl"]


class SumControl(wiring.Component):
    """Counts phases. A sum goes to an accumulator at its last phase, `finish`; it begins with `restart`.

    A sum is the phases of an entry; with scales those of a group: 16/K, in A4W4 8/K, of the same row group; depthwise a
    phase. The last phase of a tile ends a sum. `overwrite`: it is the first sum of its accumulator.

    `advance`: a phase is computed. It is described by `operation`, `first` (its entry is the first of its tile),
    `group_last` (last phase of its entry and row group) and `tile_last`.
    """

    def __init__(self, *, lanes: int) -> None:
        self._lanes = lanes
        super().__init__(
            {
                "advance": In(1),
                "operation": In(OPERATION),
                "first": In(1),
                "group_last": In(1),
                "tile_last": In(1),
                "restart": Out(1),
                "finish": Out(1),
                "overwrite": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operation: Any = self.operation
        scaled, scaled_a4 = max(1, 16 // self._lanes), max(1, 8 // self._lanes)  # phases of a group
        count, limit = Signal(range(max(2, scaled))), Signal(range(max(2, scaled)))
        finished = Signal()  # this accumulator has had a sum of this entry, or of this tile when groups span entries
        with m.If(operation.mode == Precision.A4W4):
            m.d.comb += limit.eq(Mux(operation.scales, scaled_a4 - 1, 0))
        with m.Elif(~operation.depthwise):
            m.d.comb += limit.eq(Mux(operation.scales, scaled - 1, 1))
        spans = operation.scales if self._lanes < 8 else 0
        m.d.comb += [
            self.restart.eq(count == 0),
            self.finish.eq((count == limit) | self.tile_last),
            self.overwrite.eq((self.first | spans) & ~finished),
        ]
        with m.If(self.advance):
            m.d.sync += [
                count.eq(Mux(self.finish, 0, count + 1)),
                finished.eq(Mux(spans, (finished | self.finish) & ~self.tile_last, self.finish & ~self.group_last)),
            ]
        return m
