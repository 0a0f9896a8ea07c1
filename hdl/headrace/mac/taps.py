"""Collects the words of a kernel row for the depthwise mode."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.mac.gather import vector_layout
from headrace.mac.jobs import step_layout

__all__ = ["TapCollector"]


class TapCollector(wiring.Component):
    """Puts vectors together, one a cycle, until those of a kernel row are there; then `o` offers what the PEs take.

    operands[h][r][c]: byte h*C + c of row r's words of the kernel columns, column j in byte j; those beyond the kernel
    hold anything. step: that of the kernel row's last vector.

    With `step.shared` only even kernel columns come: row r's word of odd column kx is row r+1's of kx - 1, the last
    row's is the row before's of kx + 1.

    The next kernel row comes in while the last one is at `o`: two cycles after its last vector at the earliest.
    `busy`: vectors are in here.
    """

    def __init__(self, *, rows: int, cols: int, accs: int, taps: int, halves: int) -> None:
        self._rows = rows
        self._cols = cols
        self._taps = taps
        self._halves = halves
        word_bytes = halves * cols
        self._step = step_layout(accs=accs, taps=taps)
        self._words = data.ArrayLayout(data.ArrayLayout(8 * word_bytes, rows), taps)
        operands = data.ArrayLayout(data.ArrayLayout(data.ArrayLayout(8 * taps, cols), rows), halves)
        super().__init__(
            {
                "i": In(stream.Signature(vector_layout(rows=rows, word_bytes=word_bytes, accs=accs, taps=taps))),
                "o": Out(stream.Signature(data.StructLayout({"operands": operands, "step": self._step}))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        coming: Any = Signal(self._words, reset_less=True)
        coming_step, step = Signal(self._step, reset_less=True), Signal(self._step, reset_less=True)
        some, complete, valid, move = Signal(), Signal(), Signal(), Signal()
        vector: Any = self.i.payload
        take = Signal()
        m.d.comb += [
            move.eq(complete & (~valid | self.o.ready)),
            self.i.ready.eq(~complete | move),
            take.eq(self.i.valid & self.i.ready),
            self.o.valid.eq(valid),
            self.o.payload.step.eq(step),
            self.busy.eq(some | valid),
        ]
        with m.If(move):
            m.d.sync += [step.eq(coming_step), complete.eq(0), some.eq(0)]
        with m.If(move | self.o.ready):
            m.d.sync += valid.eq(move)
        with m.If(take):
            m.d.sync += [some.eq(1), complete.eq(vector.step.kernel_last), coming_step.eq(vector.step)]
            for j in range(self._taps):
                self._fill(m, coming[j], vector, j)
        for h in range(self._halves):
            for r in range(self._rows):
                self._regroup(m, coming, move, h, r)
        return m

    def _regroup(self, m: Module, coming: Any, move: Signal, h: int, r: int) -> None:
        """The row's words from one a kernel column to one a PE."""
        operands = Signal(8 * self._taps * self._cols, name=f"operands_{h}_{r}", reset_less=True)
        channels = [h * self._cols + c for c in range(self._cols)]
        with m.If(move):
            m.d.sync += operands.eq(Cat(coming[j][r].word_select(i, 8) for i in channels for j in range(self._taps)))
        m.d.comb += self.o.payload.operands[h][r].eq(operands)

    def _fill(self, m: Module, words: Any, vector: Any, j: int) -> None:
        """Kernel column j from a vector of its own or, when odd, of its neighbours."""
        last = self._rows - 1
        step = vector.step
        own = Signal(name=f"own_{j}")
        m.d.comb += own.eq(step.kx == j)
        if j % 2 == 0 or last == 0:
            with m.If(own):
                m.d.sync += words.eq(vector.words)
            return
        before, after = Signal(name=f"before_{j}"), Signal(name=f"after_{j}")
        m.d.comb += [before.eq(step.shared & (step.kx == j - 1)), after.eq(step.shared & (step.kx == j + 1))]
        for r in range(last):
            with m.If(own | before):
                m.d.sync += words[r].eq(Mux(before, vector.words[r + 1], vector.words[r]))
        with m.If(own | after):
            m.d.sync += words[last].eq(Mux(after, vector.words[last - 1], vector.words[last]))
