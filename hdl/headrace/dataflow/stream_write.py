"""The writing end of a scratchpad stream."""

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.dataflow.beat import vector_layout
from headrace.dataflow.elements import Conversion, narrow, valid_lanes
from headrace.dataflow.words import WordSequence, request_layout, rotate_bytes
from headrace.interfaces import ErrorLayout, SpadWrite
from headrace.isa import Cause, DType

__all__ = ["StreamWrite", "sink_layout"]


def sink_layout(lanes: int) -> data.StructLayout:
    """What follows a beat to its words: payload, command and whether it completes the command."""
    return data.StructLayout({"x": vector_layout(lanes), "queue": 1, "done": 1, "index": 16})


class StreamWrite(wiring.Component):
    """Converts lanes to elements and writes them, one scratchpad word a cycle, in order.

    request: where the beat goes and how many lanes it has; conversion and payload x; queue and index name the command;
    done: this beat completes its command. A KA beat writes no byte and makes the low bits of lane 0 the activation
    shift of its word, which every other write clears. `done[queue]` pulses once all words of that beat have been
    transferred. A word outside the scratchpad raises RANGE (`error_queue` says whose) and is not written; the stream
    then stays where it is.
    """

    def __init__(self, *, banks: int, words: int, word_bytes: int, lanes: int) -> None:
        self._lanes, self._word_bytes = lanes, word_bytes
        self._shape = {"banks": banks, "words": words, "word_bytes": word_bytes}
        self._user = sink_layout(lanes)
        super().__init__(
            {
                "i": In(stream.Signature(request_layout(lanes=lanes, user=self._user))),
                "conversion": In(Conversion),
                "port": Out(SpadWrite(**self._shape)),
                "done": Out(2),
                "error": Out(ErrorLayout),
                "error_queue": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequence = sequence = WordSequence(
            **self._shape, repeats=False, lanes=self._lanes, user=self._user
        )
        beat = self.i.payload
        valid = valid_lanes(m, beat.lanes, most=self._lanes)
        converted = narrow(m, self.i.valid, beat.at.view.type, self.conversion, beat.user.x, valid)
        m.d.comb += [
            sequence.i.valid.eq(self.i.valid),
            self.i.ready.eq(sequence.i.ready),
            sequence.i.payload.eq(beat),
            sequence.i.payload.user.x.eq(converted),
        ]
        word = sequence.o.payload
        move, transfer, writes = Signal(), Signal(), Signal()
        done, queue = Signal(), Signal()
        req = self.port.req
        data_in, mask = self._place(m, word, sequence.o.valid & sequence.o.ready)
        m.d.comb += [
            move.eq(~writes | req.ready),
            req.valid.eq(writes),
            sequence.o.ready.eq(move & ~word.bad),
            transfer.eq(sequence.o.valid & sequence.o.ready),
            self.done.eq((done & move) << queue),
            self.error.valid.eq(sequence.o.valid & word.bad),
            self.error.cause.eq(Cause.RANGE),
            self.error.index.eq(word.user.index),
            self.error.address.eq(word.addr),
            self.error_queue.eq(word.user.queue),
        ]
        with m.If(move):
            m.d.sync += [
                writes.eq(transfer & ~word.empty),
                done.eq(transfer & word.last & word.user.done),
                queue.eq(word.user.queue),
                req.payload.bank.eq(word.bank),
                req.payload.addr.eq(word.addr),
                req.payload.data.eq(data_in),
                req.payload.mask.eq(mask),
                req.payload.ka.eq(Mux(word.type == DType.KA, word.user.x[0], 0)),
            ]
        return m

    def _place(self, m: Module, word: data.View, taken: Value) -> tuple[Signal, Signal]:
        """Data and byte mask of a word. Byte i of word j is byte jW + i - offset of the beat."""
        size = self._word_bytes
        chunks = -(-4 * self._lanes // size)
        beat = Signal(8 * size * chunks)
        m.d.comb += beat.eq(word.user.x)
        current, previous, picked = Signal(8 * size), Signal(8 * size), Signal(8 * size)
        carries = Signal(size)
        m.d.comb += carries.eq(Cat(b + word.offset >= size for b in range(size)))
        with m.Switch(word.number):
            for q in range(chunks):
                with m.Case(q):
                    m.d.comb += current.eq(beat[8 * size * q : 8 * size * (q + 1)])
        with m.If(taken):
            m.d.sync += previous.eq(current)
        m.d.comb += picked.eq(
            Cat(Mux(carries[b], previous[8 * b : 8 * b + 8], current[8 * b : 8 * b + 8]) for b in range(size))
        )
        begin, end = Signal(Shape.cast(range(size * (chunks + 2)))), Signal(Shape.cast(range(size * (chunks + 2))))
        mask = Signal(size)
        start = Signal(range(size * (chunks + 2)))
        m.d.comb += [
            start.eq(word.number * size),
            begin.eq(word.offset),
            end.eq(word.offset + Mux(word.type == DType.KA, 0, word.bytes)),
            mask.eq(Cat((start + i >= begin) & (start + i < end) for i in range(size))),
        ]
        return rotate_bytes(m, "placed", picked, word.offset, left=True), mask
