"""Weight entries from the ring, in the order in which the array uses them."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision, index_bits
from headrace.interfaces import RING_LATENCY, RingRead
from headrace.mac.jobs import WEIGHT_JOB
from headrace.mac.words import WordLoop, kernel_chunks
from headrace.memory.fifo import StreamFifo

__all__ = ["WeightFetch", "entry_layout"]


def entry_layout(*, cols: int, word_bytes: int, groups: int) -> data.StructLayout:
    """A weight entry for the array: of every column its codes, scales (as in `RingRead`) and group offset shift."""
    return data.StructLayout(
        {
            "codes": data.ArrayLayout(8 * word_bytes, cols),
            "scales": data.ArrayLayout(16 * groups, cols),
            "kc": data.ArrayLayout(3, cols),
        }
    )


class WeightFetch(wiring.Component):
    """Reads each tile's entries ahead of their use into a queue of DEPTH entries.

    Entry e of n tile n is at ring offset n*E + e when the job holds, else e. An entry is given up in the cycle of its
    last read: without `hold`, in the last tile of its n tile (`replay`) or at once (no `replay`), so that it is the
    oldest then, at offset 0. A read waits until its entry is complete in the ring. `stop` ends all reads. Steady state:
    an entry a cycle; where entries have two words (A8W4), one every two cycles.

    Word kc_base + n of the table of shifts is read beside every entry of an n tile: `shifts` is valid a cycle after
    `shift_en`.

    `tag_error` is set while an entry arrives whose tag, `error_tag`, differs from that of the job, `error_index`.
    """

    DEPTH = 4  # covers the way from a use to the next read's arrival when every entry is used for one cycle only

    def __init__(self, *, cols: int, lanes: int, ring_entries: int, groups: int, kc_words: int) -> None:
        self._word_bytes = 2 * lanes
        self._entries = ring_entries
        self._entry = entry_layout(cols=cols, word_bytes=self._word_bytes, groups=groups)
        super().__init__(
            {
                "job": In(stream.Signature(WEIGHT_JOB)),
                "ring": Out(RingRead(cols=cols, word_bytes=self._word_bytes, entries=ring_entries, groups=groups)),
                "shift_en": Out(1),
                "shift_word": Out(index_bits(kc_words)),
                "shifts": In(data.ArrayLayout(3, cols)),
                "o": Out(stream.Signature(self._entry)),
                "stop": In(1),
                "tag_error": Out(1),
                "error_tag": Out(8),
                "error_index": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, running = Signal(WEIGHT_JOB), Signal()
        m.submodules.word = word = WordLoop()
        m.submodules.fifo = fifo = StreamFifo(shape=self._entry, depth=self.DEPTH)
        n, mt = Signal(16), Signal(16)
        m_last, n_end, finished, give_up = Signal(), Signal(), Signal(), Signal()
        base, position = Signal(index_bits(self._entries)), Signal(index_bits(self._entries))
        claimed = Signal(range(self.DEPTH + 1))  # places in the queue that are taken or will be
        active, second, pass_over = Signal(), Signal(), Signal()  # pass over an entry's first word: read at its second
        m.d.comb += [
            word.kh.eq(job.kh),
            word.kx_count.eq(Mux(job.depthwise, 1, kernel_chunks(job, self._word_bytes))),
            word.cw.eq(job.cw),
            word.next.eq(self.ring.en | pass_over),
            active.eq(running & ~self.stop),
            pass_over.eq(active & (job.mode == Precision.A8W4) & ~second & ~word.last),
            m_last.eq(mt == job.m_tiles - 1),
            n_end.eq(self.ring.en & word.last & m_last),
            finished.eq(n_end & (n == job.n_tiles - 1)),
            give_up.eq(~job.hold & (m_last | ~job.replay)),
            self.ring.offset.eq(Mux(give_up, 0, position)),
            self.ring.release.eq(self.ring.en & give_up),
            self.ring.en.eq(active & ~pass_over & (claimed != self.DEPTH) & (self.ring.level > self.ring.offset)),
            self.job.ready.eq(~running | finished),
            fifo.i.payload.codes.eq(self.ring.codes),
            fifo.i.payload.scales.eq(self.ring.scales),
            fifo.i.payload.kc.eq(self.shifts),
            self.o.valid.eq(fifo.o.valid),
            self.o.payload.eq(fifo.o.payload),
            fifo.o.ready.eq(self.o.ready),
        ]
        with m.If(word.next):
            m.d.sync += second.eq(pass_over)
        m.d.sync += claimed.eq(claimed + self.ring.en - (self.o.valid & self.o.ready))
        with m.If(self.job.ready):
            m.d.sync += [running.eq(self.job.valid), job.eq(self.job.payload)]
        with m.If(self.ring.en):
            m.d.sync += position.eq(position + 1)
            with m.If(word.last):
                m.d.sync += [position.eq(base), mt.eq(Mux(m_last, 0, mt + 1))]
        with m.If(n_end):
            m.d.sync += n.eq(n + 1)
            with m.If(job.hold):
                m.d.sync += [base.eq(position + 1), position.eq(position + 1)]
        with m.If(finished):
            m.d.sync += [n.eq(0), base.eq(0), position.eq(0)]
        # With the data a cycle later these arrive when the ring's do.
        m.d.sync += [
            self.shift_en.eq(self.ring.en & job.scales & (job.mode != Precision.A8W8)),
            self.shift_word.eq(job.kc_base + n),
        ]
        self._arrival(m, job, fifo)
        return m

    def _arrival(self, m: Module, job: data.View[data.StructLayout], fifo: StreamFifo) -> None:
        """Takes codes out of the ring's pipeline and checks their tag against that of the read's job."""
        read = data.StructLayout({"en": 1, "tag": 8, "index": 16})
        stages = [Signal(read, name=f"read_{i}") for i in range(RING_LATENCY + 1)]
        m.d.comb += [stages[0].en.eq(self.ring.en), stages[0].tag.eq(job.tag), stages[0].index.eq(job.index)]
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        arrived = stages[-1]
        m.d.comb += [
            self.tag_error.eq(arrived.en & (arrived.tag != self.ring.tag)),
            self.error_tag.eq(self.ring.tag),
            self.error_index.eq(arrived.index),
            fifo.i.valid.eq(arrived.en),
        ]
