"""LOAD engine: DDR, or a fill value, to the scratchpad, or to one of the small memories of 32-bit elements."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import BurstRead, ColumnWrite, EnginePort, KcWrite, SpadWrite
from headrace.isa import CONTEXT_WORDS, Cause, Dest
from headrace.isa.commands import LOAD

from .chunks import Chunker
from .elements import ElementSpace, ElementWalk
from .fifo import StreamFifo
from .prefetch import Prefetcher
from .realign import Realigner
from .words import ViewLayout, WordWalk

__all__ = ["LoadEngine"]

ELEMENT_BYTES = 4
JobLayout = data.StructLayout({"view": ViewLayout, "index": 16, "dest": 2, "fill": 1, "fill_value": 8})


class LoadEngine(wiring.Component):
    """Executes LOAD commands.

        prefetcher --> segments --> beat chunks --> realigner --> scratchpad or element writes
             |              +-----> words or groups ----^
             +-------> beats -----------^

    Steady state: a word, or a beat if that is less, a cycle; segments follow each other without a gap; fill counts as
    beats. Elements go in aligned groups, one a cycle, of `load_elements` (COLUMN), at most 4 of them (CONTEXT), or one
    (KC): N contiguous elements take N / group cycles, one more for a part of a group at either end, and, from issue to
    done, 10 and the latency of the bus. Bursts are requested `data_beats` beats ahead of the writes at most. The
    prefetcher begins the next command while the previous one is written. done: a cycle after the last write.

    Errors: RANGE (word or element outside; it and what follows is not written), ALIGN (`ddr`, strides or n0 not a
    multiple of 4 for elements), MALFORMED (fill with a destination other than the scratchpad).
    """

    def __init__(
        self,
        *,
        axi_bytes: int,
        burst_beats: int,
        outstanding: int,
        data_beats: int,
        banks: int,
        words: int,
        word_bytes: int,
        column_elements: int,
        context_elements: int,
        kc_elements: int,
        load_elements: int,
    ) -> None:
        self._axi_bytes, self._word_bytes, self._load_elements = axi_bytes, word_bytes, load_elements
        self._prefetcher = Prefetcher(
            axi_bytes=axi_bytes, burst_beats=burst_beats, data_beats=data_beats, segments=2 * outstanding
        )
        self._words = WordWalk(banks=banks, words=words, word_bytes=word_bytes)
        self._groups = ElementWalk(
            spaces={
                Dest.COLUMN: ElementSpace(column_elements, load_elements),
                Dest.CONTEXT: ElementSpace(context_elements, min(load_elements, CONTEXT_WORDS)),
                Dest.KC: ElementSpace(kc_elements, 1),
            }
        )
        self._beats = Chunker(unit=axi_bytes, size_bits=24)
        target = {"bank": index_bits(banks), "addr": index_bits(words), "element": 24, "dest": 2, "last": 1}
        out_bytes = max(word_bytes, ELEMENT_BYTES * load_elements)
        self._realigner = Realigner(in_bytes=axi_bytes, out_bytes=out_bytes, tag=data.StructLayout(target))
        super().__init__(
            {
                "port": In(EnginePort(LOAD)),
                "bus": Out(BurstRead(axi_bytes=axi_bytes)),
                "spad": Out(SpadWrite(banks=banks, words=words, word_bytes=word_bytes)),
                "column": Out(ColumnWrite(elements=load_elements)),
                "kc": Out(KcWrite(elements=kc_elements)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.prefetcher, m.submodules.beats = self._prefetcher, self._beats
        m.submodules.words, m.submodules.groups, m.submodules.realigner = self._words, self._groups, self._realigner
        m.submodules.jobs = jobs = StreamFifo(shape=JobLayout, depth=2)
        wiring.connect(m, self._prefetcher.bus, wiring.flipped(self.bus))
        job = Signal(JobLayout)  # what is being written
        self._accept(m, jobs)
        self._read(m, jobs, job)
        self._place(m, job)
        self._write(m)
        pending = Signal(3)
        m.d.sync += pending.eq(pending + (self.port.issue.valid & self.port.issue.ready) - self.port.done)
        m.d.comb += self.port.busy.eq(pending != 0)
        return m

    def _accept(self, m: Module, jobs: StreamFifo) -> None:
        """Check the command and hand it to the prefetcher and to the queue of jobs."""
        issue, error = self.port.issue, self.port.error
        command = issue.p.cmd
        elements = Signal()
        misaligned = Signal()
        misfilled = Signal()
        legal = Signal()
        start = self._prefetcher.i
        low_bits = command.ddr[:2] | command.n0[:2] | command.s1[:2] | command.s2[:2] | command.s3[:2]
        m.d.comb += [
            elements.eq(command.dest != Dest.SPAD),
            misfilled.eq(elements & command.fill),
            misaligned.eq(elements & (low_bits != 0)),
            legal.eq(~misfilled & ~misaligned),
            issue.ready.eq(start.ready & jobs.i.ready & ~error.valid),
            start.valid.eq(issue.valid & jobs.i.ready & ~error.valid & legal),
            jobs.i.valid.eq(issue.valid & start.ready & ~error.valid & legal),
            *(start.p.walk[name].eq(command[name]) for name in start.p.walk.shape().members if name != "pixel"),
            start.p.walk.pixel.eq(Mux(elements, command.element, command.p0)),
            *(start.p.n0.eq(command.n0), start.p.read.eq(~command.fill), start.p.index.eq(issue.p.index)),
            *(jobs.i.p[name].eq(command[name]) for name in ("dest", "fill", "fill_value")),
            *(jobs.i.p.view[name].eq(command[name]) for name in ViewLayout.members),
            jobs.i.p.index.eq(issue.p.index),
        ]
        with m.If(issue.valid & issue.ready & ~legal):
            m.d.sync += [
                *(error.valid.eq(1), error.index.eq(issue.p.index)),
                error.cause.eq(Mux(misfilled, Cause.MALFORMED, Cause.ALIGN)),
                error.address.eq(Mux(misfilled, LOAD["fill"].offset, command.ddr)),
            ]

    def _read(self, m: Module, jobs: StreamFifo, job: Any) -> None:
        """Give each segment to the beat chunks and to its words or groups, and the beats to the realigner; take the
        next job when all are through."""
        segments, beats, words, groups = self._prefetcher.segments, self._beats, self._words, self._groups
        running = Signal()  # segments of the job are still to come
        both = Signal()
        elements = job.dest != Dest.SPAD
        m.d.comb += [
            both.eq(segments.valid & running & beats.i.ready & Mux(elements, groups.i.ready, words.i.ready)),
            segments.ready.eq(both),
            *(beats.i.valid.eq(both), words.i.valid.eq(both & ~elements), groups.i.valid.eq(both & elements)),
            beats.i.p.offset.eq(Mux(job.fill, 0, segments.p.offset)),
            beats.i.p.size.eq(job.view.n0),
            *(walk.i.p[name].eq(segments.p[name]) for walk in (words, groups) for name in ("pixel", "last")),
            words.view.eq(job.view),
            *(groups.dest.eq(job.dest), groups.size.eq(job.view.n0 // ELEMENT_BYTES)),
            jobs.o.ready.eq(~running & ~words.busy & ~groups.busy & ~beats.busy),
        ]
        with m.If(both & segments.p.last):
            m.d.sync += running.eq(0)
        with m.If(jobs.o.valid & jobs.o.ready):
            m.d.sync += [job.eq(jobs.o.payload), running.eq(1)]
        unit, arriving = self._realigner.i, self._prefetcher.beats
        m.d.comb += [
            unit.valid.eq(beats.o.valid & (arriving.valid | job.fill)),
            unit.p.data.eq(Mux(job.fill, job.fill_value.replicate(self._axi_bytes), arriving.payload)),
            *(unit.p.offset.eq(beats.o.p.offset), unit.p.count.eq(beats.o.p.count)),
            beats.o.ready.eq(unit.ready & (arriving.valid | job.fill)),
            arriving.ready.eq(unit.ready & beats.o.valid & ~job.fill),
        ]

    def _place(self, m: Module, job: Any) -> None:
        """Ask the realigner for one word or group of elements after the other, and check where it goes."""
        word, group, chunk, error = self._words.o, self._groups.o, self._realigner.chunk, self.port.error
        outside = Signal()
        address = Signal(26)
        tag = chunk.p.tag
        m.d.comb += [
            *(tag.bank.eq(word.p.bank), tag.addr.eq(word.p.addr), tag.dest.eq(job.dest)),
            tag.element.eq(group.p.element ^ group.p.offset),  # the offset is its low bits
        ]
        with m.If(job.dest == Dest.SPAD):
            m.d.comb += [
                *(outside.eq(word.valid & word.p.outside), address.eq(word.p.word)),
                *(chunk.valid.eq(word.valid & ~word.p.outside), word.ready.eq(chunk.ready & ~word.p.outside)),
                *(chunk.p.offset.eq(word.p.offset), chunk.p.count.eq(word.p.count), tag.last.eq(word.p.last)),
            ]
        with m.Else():
            m.d.comb += [
                *(outside.eq(group.valid & group.p.outside), address.eq(group.p.element[:24])),
                *(chunk.valid.eq(group.valid & ~group.p.outside), group.ready.eq(chunk.ready & ~group.p.outside)),
                *(chunk.p.offset.eq(group.p.offset * ELEMENT_BYTES), chunk.p.count.eq(group.p.count * ELEMENT_BYTES)),
                tag.last.eq(group.p.last),
            ]
        with m.If(outside & ~error.valid):
            m.d.sync += [
                *(error.valid.eq(1), error.cause.eq(Cause.RANGE), error.index.eq(job.index)),
                error.address.eq(address),
            ]

    def _write(self, m: Module) -> None:
        ready = self._realigner.o
        spad = self.spad.req
        elements = ready.p.tag.dest != Dest.SPAD
        shifts = ready.p.tag.dest == Dest.KC
        mask = Cat(ready.p.mask[ELEMENT_BYTES * i] for i in range(self._load_elements))
        m.d.comb += [
            spad.valid.eq(ready.valid & ~elements),
            Cat(spad.p.bank, spad.p.addr).eq(Cat(ready.p.tag.bank, ready.p.tag.addr)),
            *(spad.p.data.eq(ready.p.data), spad.p.mask.eq(ready.p.mask)),
            self.column.mask.eq(Mux(ready.valid & elements & ~shifts, mask, 0)),
            self.column.context.eq(ready.p.tag.dest == Dest.CONTEXT),
            self.column.element.eq(ready.p.tag.element),
            self.column.data.eq(ready.p.data[: 8 * ELEMENT_BYTES * self._load_elements]),
            self.kc.en.eq(ready.valid & shifts),
            *(self.kc.element.eq(ready.p.tag.element), self.kc.data.eq(ready.p.data[: 8 * ELEMENT_BYTES])),
            ready.ready.eq(elements | spad.ready),
        ]
        m.d.sync += self.port.done.eq(ready.valid & ready.ready & ready.p.tag.last)
