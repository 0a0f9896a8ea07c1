"""Two clients of one scratchpad read port."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import SpadRead

__all__ = ["ReadShare"]


class ReadShare(wiring.Component):
    """Passes requests of two clients on, in turn when both ask; a request once offered is offered until it is taken.

    Both clients see `data`; each knows when its own arrives.
    """

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        client = SpadRead(banks=banks, words=words, word_bytes=word_bytes)
        super().__init__({"clients_0": In(client), "clients_1": In(client), "port": Out(client)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first, second, port = self.clients_0.req, self.clients_1.req, self.port.req
        previous, held, choice = Signal(), Signal(), Signal()
        m.d.comb += [
            choice.eq(Mux(held, previous, Mux(previous, ~first.valid, second.valid))),
            port.valid.eq(Mux(choice, second.valid, first.valid)),
            port.payload.eq(Mux(choice, second.payload.as_value(), first.payload.as_value())),
            first.ready.eq(port.ready & ~choice),
            second.ready.eq(port.ready & choice),
            self.clients_0.data.eq(self.port.data),
            self.clients_1.data.eq(self.port.data),
        ]
        with m.If(port.valid):
            m.d.sync += [previous.eq(choice), held.eq(~port.ready)]
        return m
