"""Group scales: the scales of a sum on their way along the edges of the array, and their use in a PE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OFFSET", "TERM", "XSUM", "Rescale", "ScalePipeline"]

XSUM = signed(14)  # sum of the activations of a group: 32 codes, -4096..8160
OFFSET = signed(15)  # sm << kc
# Scaled with 4-bit weights: at most 255 * (32 * 255 * 15) + 128 * 2^7 * 8160 + 64 < 2^28.
# Scaled A8W8: 8 * 16 * 255 * 255. Not scaled: the sum itself, of at most 128 products of bytes.
TERM = signed(29)


class Rescale(wiring.Component):
    """(sd * psum + offset * xsum) >>r ka, in two stages and a shift.

    1. `scale`: takes psum, xsum, sd and offset, which is sm << kc.
    2. `combine`: takes half, which is (1 << ka) >> 1.

    `term` is the result, shifted by the `ka` of now: combinational in the cycle after `combine`.
    """

    def __init__(self, *, psum_bits: int) -> None:
        super().__init__(
            {
                "psum": In(signed(psum_bits)),
                "xsum": In(XSUM),
                "sd": In(8),
                "offset": In(OFFSET),
                "scale": In(1),
                "half": In(7),
                "combine": In(1),
                "ka": In(3),
                "term": Out(TERM),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = Signal(TERM, reset_less=True)
        offset = Signal(TERM, reset_less=True)
        total = Signal(TERM, reset_less=True)
        with m.If(self.scale):
            m.d.sync += [product.eq(self.psum * self.sd), offset.eq(self.xsum * self.offset)]
        with m.If(self.combine):
            m.d.sync += total.eq(product + offset + self.half)
        m.d.comb += self.term.eq(total >> self.ka)
        return m


class ScalePipeline(wiring.Component):
    """Scales of the rows and columns, delayed to the stages of the PEs that use them.

    In a cycle with `take` the scales of a sum are sampled: those of the ports when `scaled` (with 8-bit weights,
    `wide_weights`, sd = 8 and sm = 0), else sd = 1 and no offset or shift. `valid[i]` says that a sum is in stage
    i + 1, i + 1 cycles after. sd and offset are out in stage 3, half in stage 4, ka_out in stage 5.
    """

    STAGES = 4

    def __init__(self, *, rows: int, cols: int) -> None:
        self._rows = rows
        self._cols = cols
        super().__init__(
            {
                "take": In(1),
                "scaled": In(1),
                "wide_weights": In(1),
                "ka": In(data.ArrayLayout(3, rows)),
                "sd": In(data.ArrayLayout(8, cols)),
                "sm": In(data.ArrayLayout(signed(8), cols)),
                "kc": In(data.ArrayLayout(3, cols)),
                "valid": In(self.STAGES),
                "sd_out": Out(8).array(cols),
                "offset_out": Out(OFFSET).array(cols),
                "half_out": Out(7).array(rows),
                "ka_out": Out(3).array(rows),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enables = [self.take, *self.valid]
        use_port = Signal()
        m.d.comb += use_port.eq(self.scaled & ~self.wide_weights)
        plain_sd = Mux(self.scaled, 8, 1)
        for c in range(self._cols):
            offset = Mux(use_port, self.sm[c] << self.kc[c], 0)
            sd_stages = self._delay(m, Mux(use_port, self.sd[c], plain_sd), enables[:3], f"sd_{c}")
            offset_stages = self._delay(m, offset, enables[:3], f"offset_{c}")
            m.d.comb += [self.sd_out[c].eq(sd_stages[-1]), self.offset_out[c].eq(offset_stages[-1])]
        for r in range(self._rows):
            ka = self._delay(m, Mux(self.scaled, self.ka[r], 0), enables[:5], f"ka_{r}")
            m.d.comb += [self.half_out[r].eq((1 << ka[3]) >> 1), self.ka_out[r].eq(ka[4])]
        return m

    def _delay(self, m: Module, value: Value, enables: Sequence[Any], name: str) -> list[Signal]:
        """`value` after one stage, two stages and so on; a stage moves when its enable is set."""
        stages: list[Signal] = []
        for i, enable in enumerate(enables):
            stage = Signal(value.shape(), name=f"{name}_{i + 1}", reset_less=True)
            with m.If(enable):
                m.d.sync += stage.eq(stages[-1] if stages else value)
            stages.append(stage)
        return stages
