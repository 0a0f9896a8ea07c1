"""Which bytes of a word and of an entry meet in the array's lanes."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision

__all__ = ["LaneOperands"]


class LaneOperands(wiring.Component):
    """Combinational. Of `words` (2K bytes a row) and `codes` (2K bytes a column) the lanes of phase `half` take

        mode   activation lane j                     weight lane j
        A8W8   byte half*K + j                       byte half*K + j
        A8W4   bytes 2j, 2j+1                        byte half*K + j (two codes)
        A4W4   bytes 2j, 2j+1 (four codes)           bytes 2j, 2j+1 (four codes)

    Each lane has 16 bits; one byte leaves the upper half 0. With `only_taps` weights of lanes from `taps` on are 0.
    """

    def __init__(self, *, rows: int, cols: int, lanes: int, taps: int) -> None:
        self._lanes = lanes
        self._taps = taps
        super().__init__(
            {
                "mode": In(Precision),
                "half": In(1),
                "only_taps": In(1),
                "taps": In(range(max(1, taps) + 1)),
                "words": In(data.ArrayLayout(16 * lanes, rows)),
                "codes": In(data.ArrayLayout(16 * lanes, cols)),
                "a": Out(data.ArrayLayout(16 * lanes, rows)),
                "w": Out(data.ArrayLayout(16 * lanes, cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one_byte_a, one_byte_w = Signal(), Signal()
        m.d.comb += [one_byte_a.eq(self.mode == Precision.A8W8), one_byte_w.eq(self.mode != Precision.A4W4)]
        for r in range(len(self.a)):
            m.d.comb += self.a[r].eq(Mux(one_byte_a, self._spread(m, self.words[r], f"a_{r}"), self.words[r]))
        live = self._live(m)
        for c in range(len(self.w)):
            spread = self._spread(m, self.codes[c], f"w_{c}", live)
            m.d.comb += self.w[c].eq(Mux(one_byte_w, spread, self.codes[c]))
        return m

    def _live(self, m: Module) -> Signal | None:
        """Lanes whose weights count."""
        if not self._taps:
            return None
        live = Signal(self._lanes)
        m.d.comb += live.eq(Cat(~self.only_taps | (j < self.taps if j < self._taps else 0) for j in range(self._lanes)))
        return live

    def _spread(self, m: Module, word: Value, name: str, live: Signal | None = None) -> Value:
        """The bytes of one half, one a lane."""
        bits = 8 * self._lanes
        half = Signal(bits, name=f"half_{name}")
        m.d.comb += half.eq(Mux(self.half, word[bits:], word[:bits]))
        lanes = [half.word_select(j, 8) for j in range(self._lanes)]
        if live is not None:
            lanes = [Mux(live[j], lane, 0) for j, lane in enumerate(lanes)]
        return Cat(Cat(lane, Const(0, 8)) for lane in lanes)
