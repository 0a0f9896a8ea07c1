"""Dependency tokens."""

from functools import reduce
from operator import or_

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["TOKEN_COUNT_BITS", "Tokens"]

TOKEN_COUNT_BITS = 8


class Tokens(wiring.Component):
    """One 8-bit counter a token.

    `units` command issuers take and signal tokens as 32-bit masks; a mask of `take` is a subset of `available` (count
    of at least 1). `full` are tokens of count 255 which are not taken in this cycle: signalling one would overflow,
    the issuer reports it, and the count stays. A token has one producer and one consumer, so that takes (and signals)
    of different units in one cycle concern different tokens. A token number at or beyond `tokens` is never available,
    and signalling it has no effect.
    """

    def __init__(self, *, tokens: int, units: int) -> None:
        self._tokens, self._units = tokens, units
        super().__init__(
            {
                "take": In(data.ArrayLayout(32, units)),
                "signal": In(data.ArrayLayout(32, units)),
                "available": Out(32),
                "full": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken, signalled = Signal(32), Signal(32)
        m.d.comb += [
            taken.eq(reduce(or_, (self.take[i] for i in range(self._units)))),
            signalled.eq(reduce(or_, (self.signal[i] for i in range(self._units)))),
        ]
        top = (1 << TOKEN_COUNT_BITS) - 1
        for i in range(self._tokens):
            count = Signal(TOKEN_COUNT_BITS, name=f"count_{i}")
            m.d.comb += [self.available[i].eq(count != 0), self.full[i].eq(Mux(taken[i], 0, count == top))]
            with m.If(signalled[i] & ~taken[i] & ~self.full[i]):
                m.d.sync += count.eq(count + 1)
            with m.Elif(taken[i] & ~signalled[i]):
                m.d.sync += count.eq(count - 1)
        return m
