"""STORE engine: scratchpad to DDR."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS, BurstWrite, EnginePort, SpadRead
from headrace.isa import Cause
from headrace.isa.commands import STORE

from .bursts import BurstSplitter
from .chunks import Chunker
from .fifo import StreamFifo
from .gather import WordGather
from .realign import Realigner
from .walk import SegmentWalker
from .words import ViewLayout, WordWalk

__all__ = ["StoreEngine"]


class StoreEngine(wiring.Component):
    """Executes STORE commands.

        walker --> word walk --> gather --> realigner --> beats with strobes --> bus data
           +-----> burst splitter --> beat chunks --^-------------------------> bus requests

    Steady state: a word, or a beat if that is less, a cycle; segments follow each other without a gap. A burst is
    requested when its last beat is sent. `outstanding` bursts may wait for their responses. The next command is
    accepted when the previous one's last word is addressed and its last burst split. done: with its last response.
    wait_bus: a beat or a request is refused this cycle (for the performance counter).
    Error RANGE: word outside the scratchpad; what precedes it in its burst may not be written.
    """

    def __init__(
        self, *, axi_bytes: int, burst_beats: int, outstanding: int, banks: int, words: int, word_bytes: int
    ) -> None:
        self._axi_bytes, self._burst_beats, self._outstanding = axi_bytes, burst_beats, outstanding
        self._walker = SegmentWalker()
        self._words = WordWalk(banks=banks, words=words, word_bytes=word_bytes)
        self._gather = WordGather(banks=banks, words=words, word_bytes=word_bytes)
        self._splitter = BurstSplitter(axi_bytes=axi_bytes, burst_beats=burst_beats)
        self._beats = Chunker(unit=axi_bytes, size_bits=(axi_bytes * burst_beats).bit_length())
        self._realigner = Realigner(in_bytes=word_bytes, out_bytes=axi_bytes, tag=1)
        super().__init__(
            {
                "port": In(EnginePort(STORE)),
                "spad": Out(SpadRead(banks=banks, words=words, word_bytes=word_bytes)),
                "bus": Out(BurstWrite(axi_bytes=axi_bytes)),
                "wait_bus": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker, m.submodules.words, m.submodules.gather = self._walker, self._words, self._gather
        m.submodules.splitter, m.submodules.beats = self._splitter, self._beats
        m.submodules.realigner = self._realigner
        wiring.connect(m, self._gather.spad, wiring.flipped(self.spad))
        index = Signal(16)
        self._accept(m, index)
        self._address(m, index)
        self._send(m, index)
        pending = Signal(range(self._outstanding + 32))
        m.d.sync += pending.eq(pending + (self.port.issue.valid & self.port.issue.ready) - self.port.done)
        data_port, request = self.bus.data, self.bus.req
        m.d.comb += [
            self.port.busy.eq(pending != 0),
            self.wait_bus.eq((data_port.valid & ~data_port.ready) | (request.valid & ~request.ready)),
        ]
        return m

    def _accept(self, m: Module, index: Signal) -> None:
        issue, start = self.port.issue, self._walker.i
        command = issue.p.cmd
        view = Signal(ViewLayout)
        free = ~self._words.busy & ~self._splitter.busy & ~self.port.error.valid
        m.d.comb += [
            issue.ready.eq(start.ready & free),
            start.valid.eq(issue.valid & free),
            *(start.p[name].eq(command[name]) for name in start.p.shape().members if name != "pixel"),
            start.p.pixel.eq(command.p0),
            self._words.view.eq(view),
        ]
        with m.If(issue.valid & issue.ready):
            m.d.sync += [view[name].eq(command[name]) for name in ViewLayout.members]
            m.d.sync += index.eq(issue.p.index)

    def _address(self, m: Module, index: Signal) -> None:
        """Give each segment to the word walk and the burst splitter, and the words to the realigner."""
        step, words, splitter, error = self._walker.o, self._words, self._splitter, self.port.error
        m.d.comb += [
            step.ready.eq(words.i.ready & splitter.i.ready),
            *(words.i.valid.eq(step.valid & splitter.i.ready), splitter.i.valid.eq(step.valid & words.i.ready)),
            *(words.i.p.pixel.eq(step.p.pixel), words.i.p.last.eq(step.p.last)),
            *(splitter.i.p.address.eq(step.p.address), splitter.i.p.bytes.eq(words.view.n0)),
            self._gather.i.payload.eq(words.o.payload),
            self._gather.i.valid.eq(words.o.valid & ~words.o.p.outside),
            words.o.ready.eq(self._gather.i.ready & ~words.o.p.outside),
            *(self._realigner.i.valid.eq(self._gather.o.valid), self._gather.o.ready.eq(self._realigner.i.ready)),
            *(self._realigner.i.p[name].eq(self._gather.o.p[name]) for name in ("data", "offset", "count")),
        ]
        with m.If(words.o.valid & words.o.p.outside):
            m.d.sync += [
                *(error.valid.eq(1), error.cause.eq(Cause.RANGE)),
                *(error.index.eq(index), error.address.eq(words.o.p.word)),
            ]

    def _send(self, m: Module, index: Signal) -> None:
        """Cut bursts into beats, send the beats, then request the burst; count responses."""
        head = data.StructLayout({"address": ADDR_BITS, "beats": 9, "index": 16, "last": 1})
        ahead = data.StructLayout({"head": head, "run": self._beats.i.payload.shape()})
        m.submodules.ahead = bursts = StreamFifo(shape=ahead, depth=16)  # covers the latency of the words
        m.submodules.heads = heads = StreamFifo(shape=head, depth=4)  # bursts whose beats are being sent
        m.submodules.flight = flight = StreamFifo(shape=1, depth=self._outstanding)
        final = Signal()  # the splitter holds the last segment of its command
        with m.If(self._splitter.i.valid & self._splitter.i.ready):
            m.d.sync += final.eq(self._walker.o.p.last)
        split, entry = self._splitter.o, bursts.i.p
        m.d.comb += [
            *(bursts.i.valid.eq(split.valid), split.ready.eq(bursts.i.ready)),
            *(entry.head.address.eq(split.p.address), entry.head.beats.eq(split.p.beats)),
            *(entry.head.index.eq(index), entry.head.last.eq(split.p.last & final)),
            *(entry.run.offset.eq(split.p.offset), entry.run.size.eq(split.p.bytes)),
            bursts.o.ready.eq(self._beats.i.ready & heads.i.ready),
            *(self._beats.i.valid.eq(bursts.o.valid & heads.i.ready), self._beats.i.payload.eq(bursts.o.p.run)),
            *(heads.i.valid.eq(bursts.o.valid & self._beats.i.ready), heads.i.payload.eq(bursts.o.p.head)),
        ]
        chunk, beat, request = self._realigner.chunk, self._realigner.o, self.bus.req
        m.d.comb += [
            *(chunk.valid.eq(self._beats.o.valid), self._beats.o.ready.eq(chunk.ready)),
            *(chunk.p.offset.eq(self._beats.o.p.offset), chunk.p.count.eq(self._beats.o.p.count)),
            chunk.p.tag.eq(self._beats.o.p.end),
            *(self.bus.data.valid.eq(beat.valid), beat.ready.eq(self.bus.data.ready)),
            *(self.bus.data.p.data.eq(beat.p.data), self.bus.data.p.strb.eq(beat.p.mask)),
        ]
        complete = Signal(range(6))  # bursts sent and not requested
        sent = beat.valid & beat.ready & beat.p.tag
        m.d.comb += [
            request.valid.eq((complete != 0) & flight.i.ready),
            *(request.p[name].eq(heads.o.p[name]) for name in ("address", "beats", "index")),
            heads.o.ready.eq(request.valid & request.ready),
            *(flight.i.valid.eq(request.valid & request.ready), flight.i.payload.eq(heads.o.p.last)),
            *(flight.o.ready.eq(self.bus.done), self.port.done.eq(self.bus.done & flight.o.payload)),
        ]
        m.d.sync += complete.eq(complete + sent - (request.valid & request.ready))
