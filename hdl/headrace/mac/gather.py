"""Activation words from the scratchpad's banks: bank conflicts, reads in flight, padding."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import SPAD_LATENCY, SpadBankRead
from headrace.mac.jobs import step_layout
from headrace.mac.words import fold_pixels
from headrace.memory.fifo import StreamFifo

__all__ = ["Gather", "access_layout", "vector_layout"]


def access_layout(*, rows: int, bank_words: int, word_bytes: int, accs: int, taps: int) -> data.StructLayout:
    """One word for every row, or, when pixels are folded, the first and then the second of two consecutive words.

    rows: whether the row needs this word, and where it is; shift: pixels of four bytes to drop from the first word;
    inside: which pixels of the result are in the input, others become `pad`, or zero with `zero`.
    second, final: second word of a pair; last access of the vector. missing: the word is beyond the reduction.
    """
    pixels = fold_pixels(word_bytes)
    row = data.StructLayout(
        {
            "need": 1,
            "bank": index_bits(rows),
            "addr": index_bits(bank_words),
            "shift": index_bits(pixels),
            "inside": pixels,
            "zero": 1,
        }
    )
    return data.StructLayout(
        {
            "rows": data.ArrayLayout(row, rows),
            "second": 1,
            "final": 1,
            "missing": 1,
            "pad": 8,
            "step": step_layout(accs=accs, taps=taps),
        }
    )


def vector_layout(*, rows: int, word_bytes: int, accs: int, taps: int) -> data.StructLayout:
    """A word of 2K bytes for every row with its activation shift, and where it belongs.

    ka: 0 outside the input and beyond m_count; that of the vector before for a missing word, whose group ends there.
    """
    return data.StructLayout(
        {
            "words": data.ArrayLayout(8 * word_bytes, rows),
            "ka": data.ArrayLayout(3, rows),
            "step": step_layout(accs=accs, taps=taps),
        }
    )


class Gather(wiring.Component):
    """Turns accesses into activation vectors, in order.

    In a cycle every bank is read at one address: that of the lowest row that still waits for the bank. All rows which
    wait for the same word are served together, the others in the cycles that follow, so an access takes as many cycles
    as the most wanted bank has different words (at least one). The vector is at `o` SPAD_LATENCY + 2 cycles after the
    last of them. Reads are started only while the queue of DEPTH vectors has room for what is in flight. `stop` ends
    all reads.
    """

    DEPTH = 8

    def __init__(self, *, rows: int, bank_words: int, word_bytes: int, accs: int, taps: int) -> None:
        self._rows = rows
        self._word_bytes = word_bytes
        self._bank_words = bank_words
        self._access = access_layout(rows=rows, bank_words=bank_words, word_bytes=word_bytes, accs=accs, taps=taps)
        self._vector = vector_layout(rows=rows, word_bytes=word_bytes, accs=accs, taps=taps)
        super().__init__(
            {
                "access": In(stream.Signature(self._access)),
                "banks": Out(SpadBankRead(words=bank_words, word_bytes=word_bytes)).array(rows),
                "o": Out(stream.Signature(self._vector)),
                "stop": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held, busy, pending = Signal(self._access), Signal(), Signal(self._rows)
        served, left = Signal(self._rows), Signal(self._rows)
        go, done = Signal(), Signal()
        claimed = Signal(range(self.DEPTH + 1))  # places in the queue that are taken or will be
        m.submodules.fifo = fifo = StreamFifo(shape=self._vector, depth=self.DEPTH)
        m.d.comb += [
            go.eq(busy & (claimed != self.DEPTH) & ~self.stop),
            left.eq(pending & ~served),
            done.eq(go & (left == 0)),
            self.access.ready.eq(~busy | done),
            self.o.valid.eq(fifo.o.valid),
            self.o.payload.eq(fifo.o.payload),
            fifo.o.ready.eq(self.o.ready),
        ]
        m.d.sync += claimed.eq(claimed + (done & held.final) - (self.o.valid & self.o.ready))
        with m.If(self.access.ready):
            m.d.sync += [busy.eq(self.access.valid), held.eq(self.access.payload)]
            m.d.sync += pending.eq(Cat(self.access.payload.rows[r].need for r in range(self._rows)))
        with m.Elif(go):
            m.d.sync += pending.eq(left)
        self._arbitrate(m, held, pending, go, served)
        self._arrive(m, held, go & done, served & go.replicate(self._rows), fifo)
        return m

    def _arbitrate(self, m: Module, held: Any, pending: Signal, go: Signal, served: Signal) -> None:
        chosen = Signal(data.ArrayLayout(index_bits(self._bank_words), self._rows))  # address of each bank
        for b, port in enumerate(self.banks):
            wanted = [pending[r] & (held.rows[r].bank == b) for r in range(self._rows)]
            address: Value = held.rows[self._rows - 1].addr
            for r in reversed(range(self._rows - 1)):
                address = Mux(wanted[r], held.rows[r].addr, address)
            m.d.comb += [chosen[b].eq(address), port.en.eq(go & reduce(or_, wanted)), port.addr.eq(chosen[b])]
        for r in range(self._rows):
            row = held.rows[r]
            m.d.comb += served[r].eq(pending[r] & (chosen[row.bank] == row.addr))

    def _arrive(self, m: Module, held: Any, done: Value, served: Value, fifo: StreamFifo) -> None:
        """Follow the reads through the scratchpad, keep each row's word, and complete the vector."""
        flight = data.StructLayout({"served": self._rows, "push": 1, "access": self._access})
        stages = [Signal(flight, name=f"flight_{i}") for i in range(SPAD_LATENCY + 2)]
        m.d.comb += [stages[0].served.eq(served), stages[0].push.eq(done & held.final), stages[0].access.eq(held)]
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        arrived, complete = stages[SPAD_LATENCY], stages[SPAD_LATENCY + 1]
        banks = Signal(data.ArrayLayout(8 * self._word_bytes, self._rows))
        shifts = Signal(data.ArrayLayout(3, self._rows))
        ka = Signal(data.ArrayLayout(3, self._rows))  # of the words that arrived
        last_ka = Signal(data.ArrayLayout(3, self._rows))  # of the last vector
        m.d.comb += [banks[b].eq(port.data) for b, port in enumerate(self.banks)]
        m.d.comb += [shifts[b].eq(port.ka) for b, port in enumerate(self.banks)]
        with m.If(complete.push):
            m.d.sync += last_ka.eq(fifo.i.payload.ka)
        m.d.comb += [fifo.i.valid.eq(complete.push), fifo.i.payload.step.eq(complete.access.step)]
        for r in range(self._rows):
            pair = Signal(data.ArrayLayout(8 * self._word_bytes, 2), name=f"pair_{r}")
            with m.If(arrived.served[r]):
                m.d.sync += ka[r].eq(shifts[arrived.access.rows[r].bank])
                with m.If(arrived.access.second):
                    m.d.sync += pair[1].eq(banks[arrived.access.rows[r].bank])
                with m.Else():
                    m.d.sync += pair[0].eq(banks[arrived.access.rows[r].bank])
            row = complete.access.rows[r]
            outside = Mux(complete.access.missing, last_ka[r], 0)
            m.d.comb += fifo.i.payload.ka[r].eq(Mux(row.inside.any(), ka[r], outside))
            fill = Mux(row.zero, 0, complete.access.pad)
            word = Signal(8 * self._word_bytes, name=f"word_{r}")
            m.d.comb += word.eq(pair.as_value() >> (row.shift << 5))
            m.d.comb += fifo.i.payload.words[r].eq(
                Cat(Mux(inside, word.word_select(g, 32), fill.replicate(4)) for g, inside in enumerate(row.inside))
            )
