"""Distribution of loaded elements over the memories of the columns."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import ColumnWrite
from headrace.isa import CONTEXT_WORDS

__all__ = ["ColumnLoad"]


class ColumnLoad(wiring.Component):
    """Splits flat element numbers, one a cycle: (column*words + word)*L + lane for column memories,
    (context*S + column)*4 + word for contexts. The outputs belong to the element of `LATENCY` cycles before.

    contexts, memories: one write enable a column. word: context, or word of the memory. element: 32-bit word of the
    context, or lane. Elements beyond the last column are dropped.
    """

    LATENCY = 2

    def __init__(self, *, columns: int, lanes: int, contexts: int, words: int) -> None:
        self._columns, self._lanes, self._words = columns, lanes, words
        super().__init__(
            {
                "i": In(ColumnWrite()),
                "contexts": Out(columns),
                "memories": Out(columns),
                "word": Out(max(index_bits(contexts), index_bits(words))),
                "element": Out(max(index_bits(CONTEXT_WORDS), index_bits(lanes))),
                "data": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable, context = Signal(), Signal()
        group, value = Signal(24), Signal(32)
        element = Signal.like(self.element)
        m.d.sync += [enable.eq(self.i.en), context.eq(self.i.context), value.eq(self.i.data)]
        with m.If(self.i.context):
            m.d.sync += [group.eq(self.i.element // CONTEXT_WORDS), element.eq(self.i.element % CONTEXT_WORDS)]
        with m.Else():
            m.d.sync += [group.eq(self.i.element // self._lanes), element.eq(self.i.element % self._lanes)]

        m.d.sync += [self.data.eq(value), self.element.eq(element), self.contexts.eq(0), self.memories.eq(0)]
        with m.If(context):
            m.d.sync += self.word.eq(group // self._columns)
        with m.Else():
            m.d.sync += self.word.eq(group % self._words)
        for column in range(self._columns):
            m.d.sync += [
                self.contexts[column].eq(enable & context & (group % self._columns == column)),
                self.memories[column].eq(enable & ~context & (group // self._words == column)),
            ]
        return m
