"""Entry of the column chain: arbitration between the queues, wrap-around, credits."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.dataflow.beat import IDX_BITS, Queue, beat_layout, operands_layout, vector_layout
from headrace.interfaces import ErrorLayout
from headrace.isa import Cause

__all__ = ["Issue"]


class Issue(wiring.Component):
    """Chooses the next beat for column 0, at most one a cycle.

    Sources are exchanged at a `boundary` beat only; there an epilogue beat goes first, also when it is still being read
    (`waiting`). After the last beat
    of a pass with `wraps` = w, w more sub-passes with the following contexts come from the gasket buffer, which
    `returned` fills with what the last column emitted for them; nothing else enters meanwhile.

    Beats of the last (or only) sub-pass need a credit for the sink, of which there are `credits`; `returns` of them
    come back in a cycle. A wrapping pass of more than `gasket_beats` beats raises RANGE for its queue (address: the
    limit).
    """

    def __init__(self, *, lanes: int, contexts: int, gasket_beats: int, credits: int) -> None:
        self._contexts, self._beats, self._credits = contexts, gasket_beats, credits
        self._stored = data.StructLayout(
            {
                "x": vector_layout(lanes),
                "y": vector_layout(lanes),
                "idx": IDX_BITS,
                "lanes": Shape.cast(range(lanes + 1)),
                "valid": 1,
                "last": 1,
                "ends": 1,
                "bad": 1,
            }
        )
        operands = stream.Signature(operands_layout(lanes=lanes, contexts=contexts))
        beat = beat_layout(lanes=lanes, contexts=contexts)
        super().__init__(
            {
                "epilogue": In(operands),
                "vector": In(operands),
                "waiting": In(1),
                "returned": In(beat),
                "returns": In(2),
                "o": Out(beat),
                "error": Out(ErrorLayout),
                "error_queue": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gasket = gasket = SyncFIFOBuffered(width=Shape.cast(self._stored).width, depth=self._beats + 2)
        self._store(m, gasket)
        wrapped = data.View(self._stored, gasket.r_data)

        wrapping, in_pass = Signal(), Signal()
        owner, queue = Signal(Shape.cast(Queue)), Signal(Shape.cast(Queue))
        context, wraps_left = Signal(index_bits(self._contexts)), Signal(4)
        chosen = Signal(self.epilogue.payload.shape())
        available, go, final = Signal(), Signal(), Signal()
        m.d.comb += [
            queue.eq(
                Mux(in_pass | wrapping, owner, Mux(self.epilogue.valid | self.waiting, Queue.EPILOGUE, Queue.VECTOR))
            ),
            chosen.eq(Mux(queue, self.vector.payload.as_value(), self.epilogue.payload.as_value())),
            available.eq(Mux(queue, self.vector.valid, self.epilogue.valid)),
            final.eq(Mux(wrapping, wraps_left == 0, chosen.wraps == 0)),
        ]

        credit = Signal(range(self._credits + 1), init=self._credits)
        count, too_many = Signal(range(self._beats + 2)), Signal()
        m.d.comb += [
            too_many.eq(~wrapping & available & (chosen.wraps != 0) & (count == self._beats)),
            go.eq((~final | (credit != 0)) & Mux(wrapping, gasket.r_rdy, available & ~too_many)),
            gasket.r_en.eq(go & wrapping),
            self.epilogue.ready.eq(go & ~wrapping & (queue == Queue.EPILOGUE)),
            self.vector.ready.eq(go & ~wrapping & (queue == Queue.VECTOR)),
            self.error.valid.eq(too_many),
            self.error.cause.eq(Cause.RANGE),
            self.error.index.eq(chosen.index),
            self.error.address.eq(self._beats),
            self.error_queue.eq(queue),
        ]
        m.d.sync += credit.eq(credit - (go & final) + self.returns)

        with m.If(go & ~wrapping):
            m.d.sync += [
                owner.eq(queue),
                in_pass.eq(~chosen.boundary),
                count.eq(Mux(chosen.last | (chosen.wraps == 0), 0, count + 1)),
                wrapping.eq(chosen.last & (chosen.wraps != 0)),
                context.eq(chosen.context + 1),
                wraps_left.eq(chosen.wraps - 1),
            ]
        with m.Elif(go & wrapped.last):
            m.d.sync += [context.eq(context + 1), wraps_left.eq(wraps_left - 1), wrapping.eq(wraps_left != 0)]

        tag = self.o.tag
        m.d.sync += [tag.present.eq(go), tag.valid.eq(0)]
        with m.If(go):
            m.d.sync += [tag.queue.eq(queue), tag.wrap.eq(~final)]
            with m.If(wrapping):
                m.d.sync += [tag.context.eq(context), tag.valid.eq(wrapped.valid), tag.bad.eq(wrapped.bad)]
            with m.Else():
                m.d.sync += [tag.context.eq(chosen.context), tag.valid.eq(1), tag.bad.eq(0)]
            for name in ("idx", "lanes", "last", "ends"):
                m.d.sync += tag[name].eq(Mux(wrapping, wrapped[name], chosen[name]))
            for name in ("x", "y"):
                m.d.sync += self.o[name].eq(Mux(wrapping, wrapped[name].as_value(), chosen[name].as_value()))
        return m

    def _store(self, m: Module, gasket: SyncFIFOBuffered) -> None:
        """Keep what wraps. Swallowed beats of an epilogue pass are kept too: the sink counts them."""
        tag = self.returned.tag
        stored = Signal(self._stored)
        m.d.comb += [
            stored.x.eq(self.returned.x),
            stored.y.eq(self.returned.y),
            *(stored[name].eq(tag[name]) for name in ("idx", "lanes", "valid", "last", "ends", "bad")),
            gasket.w_data.eq(stored),
            gasket.w_en.eq(tag.present & tag.wrap & (tag.valid | tag.last | tag.bad | (tag.queue == Queue.EPILOGUE))),
        ]
