"""Collects the words of a kernel row for the depthwise mode."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.mac.gather import vector_layout
from headrace.mac.jobs import step_layout

__all__ = ["TapCollector", "kernel_row_layout"]


def kernel_row_layout(*, rows: int, word_bytes: int, accs: int, taps: int) -> data.StructLayout:
    """Word `words[j][r]` of kernel column j for row r; columns beyond the kernel hold anything.

    step: that of the kernel row's last vector.
    """
    words = data.ArrayLayout(data.ArrayLayout(8 * word_bytes, rows), taps)
    return data.StructLayout({"words": words, "step": step_layout(accs=accs, taps=taps)})


class TapCollector(wiring.Component):
    """Puts vectors together, one a cycle, until those of a kernel row are there.

    With `step.shared` only even kernel columns come: row r's word of odd column kx is row r+1's of kx - 1, the last
    row's is the row before's of kx + 1.

    The next kernel row comes in while the last one is at `o`: two cycles after its last vector at the earliest.
    `busy`: vectors are in here.
    """

    def __init__(self, *, rows: int, word_bytes: int, accs: int, taps: int) -> None:
        self._rows = rows
        self._taps = taps
        self._row_shape = kernel_row_layout(rows=rows, word_bytes=word_bytes, accs=accs, taps=taps)
        vector = vector_layout(rows=rows, word_bytes=word_bytes, accs=accs, taps=taps)
        super().__init__(
            {"i": In(stream.Signature(vector)), "o": Out(stream.Signature(self._row_shape)), "busy": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        coming: Any = Signal(self._row_shape, reset_less=True)
        row: Any = Signal(self._row_shape, reset_less=True)
        some, complete, valid, move = Signal(), Signal(), Signal(), Signal()
        vector: Any = self.i.payload
        take = Signal()
        m.d.comb += [
            move.eq(complete & (~valid | self.o.ready)),
            self.i.ready.eq(~complete | move),
            take.eq(self.i.valid & self.i.ready),
            self.o.valid.eq(valid),
            self.o.payload.eq(row),
            self.busy.eq(some | valid),
        ]
        with m.If(move):
            m.d.sync += [row.eq(coming), complete.eq(0), some.eq(0)]
        with m.If(move | self.o.ready):
            m.d.sync += valid.eq(move)
        with m.If(take):
            m.d.sync += [some.eq(1), complete.eq(vector.step.kernel_last), coming.step.eq(vector.step)]
            for j in range(self._taps):
                self._fill(m, coming.words[j], vector, j)
        return m

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
