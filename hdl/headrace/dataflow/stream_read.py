"""A scratchpad stream: beats of elements read by address."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.dataflow.beat import vector_layout
from headrace.dataflow.elements import valid_lanes, widen
from headrace.dataflow.words import WordSequence, request_layout, rotate_bytes, word_layout
from headrace.interfaces import SPAD_LATENCY, ErrorLayout, SpadRead
from headrace.isa import Cause

__all__ = ["StreamRead"]


class StreamRead(wiring.Component):
    """Reads each requested beat and delivers its elements as 32-bit lanes, in order.

    I8, I4 and I16 elements are sign-extended, U8 ones are not, BF16 ones become fp32, and 32-bit ones are taken as they
    are; lanes from `lanes` on are 0, and a beat without lanes reads nothing. One scratchpad word a cycle: a beat a
    cycle where beats do not straddle words, and where a request equals the one before (of the same command), which is
    not read again. A word outside the scratchpad raises RANGE (with its address and the request's command index) and is
    not read; the stream then stays where it is. `BEATS` beats are read ahead of `o`; `arrives` tells of each that comes
    in lane 0, and bit 16 of its request's `user`, whose other bits are the command's index.
    """

    BEATS = 8

    def __init__(self, *, banks: int, words: int, word_bytes: int, lanes: int) -> None:
        self._lanes, self._word_bytes = lanes, word_bytes
        self._shape = {"banks": banks, "words": words, "word_bytes": word_bytes}
        self._word = word_layout(banks=banks, word_bytes=word_bytes, lanes=lanes, user=17)
        super().__init__(
            {
                "i": In(stream.Signature(request_layout(lanes=lanes, user=17))),
                "port": Out(SpadRead(**self._shape)),
                "o": Out(stream.Signature(vector_layout(lanes))),
                "arrives": Out(data.StructLayout({"valid": 1, "marked": 1, "lane_0": 32})),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequence = sequence = WordSequence(**self._shape, lanes=self._lanes, user=17, repeats=True)
        m.submodules.fifo = fifo = SyncFIFO(width=32 * self._lanes, depth=self.BEATS)
        connect(m, flipped(self.i), sequence.i)
        word = sequence.o.payload
        taken, room = Signal(), Signal()
        m.d.comb += [
            self.port.req.valid.eq(sequence.o.valid & ~word.empty & ~word.bad & room),
            self.port.req.payload.bank.eq(word.bank),
            self.port.req.payload.addr.eq(word.addr),
            sequence.o.ready.eq(room & ~word.bad & (word.empty | self.port.req.ready)),
            taken.eq(sequence.o.valid & sequence.o.ready),
            self.error.valid.eq(sequence.o.valid & word.bad),
            self.error.cause.eq(Cause.RANGE),
            self.error.index.eq(word.user),
            self.error.address.eq(word.addr),
        ]

        # A place in the FIFO is taken with the first word of a beat and given back when the beat leaves.
        free = Signal(range(self.BEATS + 1), init=self.BEATS)
        begins, leaves = Signal(), Signal()
        m.d.comb += [
            room.eq((free != 0) | (word.number != 0)),
            begins.eq(taken & (word.number == 0)),
            leaves.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += free.eq(free - begins + leaves)

        valid, arriving = taken, word
        for stage in range(SPAD_LATENCY):
            valid_next, next_word = Signal(name=f"valid_{stage}"), Signal(self._word, name=f"word_{stage}")
            m.d.sync += [valid_next.eq(valid), next_word.eq(arriving)]
            valid, arriving = valid_next, next_word
        self._assemble(m, valid, arriving, fifo)
        m.d.comb += [
            self.o.valid.eq(fifo.r_rdy),
            self.o.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o.ready),
        ]
        return m

    def _assemble(self, m: Module, arrives: Signal, word: data.View, fifo: SyncFIFO) -> None:
        """Rotate a word so that its bytes lie at their place modulo W of the beat; merge it into the beat."""
        size = self._word_bytes
        held, valid = Signal(self._word), Signal()
        rotated = Signal(8 * size)
        m.d.sync += [
            valid.eq(arrives),
            held.eq(word),
            rotated.eq(rotate_bytes(m, "rotated", self.port.data, word.offset, left=False)),
        ]
        # Byte b modulo W of the beat comes from the following word if it lies beyond the end of the first.
        carries = Signal(size)
        m.d.comb += carries.eq(Cat(b + held.offset >= size for b in range(size)))
        chunks = -(-4 * self._lanes // size)
        arrived = Signal(chunks + 1)  # bit n: word n of the beat is here
        m.d.comb += arrived.eq(Cat(~held.empty & (held.number == n) for n in range(chunks + 1)))
        beat: list[Value] = []
        for at in range(chunks * size):
            q, b = divmod(at, size)
            before, merged = Signal(8, name=f"before_{at}"), Signal(8, name=f"merged_{at}")
            now = Mux(carries[b], arrived[q + 1], arrived[q])
            m.d.comb += merged.eq(Mux(now, rotated[8 * b : 8 * b + 8], before))
            with m.If(valid):
                m.d.sync += before.eq(merged)
            beat.append(merged)
        m.d.comb += [
            fifo.w_en.eq(valid & held.last),
            self.arrives.valid.eq(fifo.w_en),
            self.arrives.marked.eq(held.user[16]),
            self.arrives.lane_0.eq(fifo.w_data),
        ]
        widen(m, fifo.w_en, held.type, beat, valid_lanes(m, held.lanes, most=self._lanes), fifo.w_data)
