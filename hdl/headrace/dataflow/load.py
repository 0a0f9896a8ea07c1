"""Distribution of loaded elements over the memories of the columns."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.interfaces import ColumnWrite
from headrace.isa import CONTEXT_WORDS

__all__ = ["ColumnLoad"]


class ColumnLoad(wiring.Component):
    """Splits flat element numbers, one group of `elements` a cycle: (column*words + word)*L + lane for column memories,
    (context*S + column)*4 + word for contexts. The outputs belong to the group of `LATENCY` cycles before.

    contexts, memories: one write enable a column. word: context, or word of the memory. mask: the lanes, or 32-bit
    words of the context, to write. data: element i of the group, which belongs to every lane whose number mod
    `elements` is i, or word whose number mod min(elements, 4) is i. Elements beyond the last column are dropped.
    """

    LATENCY = 2

    def __init__(self, *, columns: int, lanes: int, contexts: int, words: int, elements: int) -> None:
        self._columns, self._lanes, self._words = columns, lanes, words
        super().__init__(
            {
                "i": In(ColumnWrite(elements=elements)),
                "contexts": Out(columns),
                "memories": Out(columns),
                "word": Out(max(index_bits(contexts), index_bits(words))),
                "mask": Out(max(CONTEXT_WORDS, lanes)),
                "data": Out(data.ArrayLayout(32, elements)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        context = Signal()
        flat = Signal(24)  # number of the context or word, counted over all columns
        first = Signal(range(max(CONTEXT_WORDS, self._lanes)))  # place of the group in it
        value, mask = Signal.like(self.i.data), Signal.like(self.i.mask)
        m.d.sync += [context.eq(self.i.context), value.eq(self.i.data), mask.eq(self.i.mask)]
        with m.If(self.i.context):
            m.d.sync += [flat.eq(self.i.element // CONTEXT_WORDS), first.eq(self.i.element % CONTEXT_WORDS)]
        with m.Else():
            m.d.sync += [flat.eq(self.i.element // self._lanes), first.eq(self.i.element % self._lanes)]

        m.d.sync += [self.data.eq(value), self.mask.eq(mask << first)]
        with m.If(context):
            m.d.sync += self.word.eq(flat // self._columns)
        with m.Else():
            m.d.sync += self.word.eq(flat % self._words)
        for column in range(self._columns):
            m.d.sync += [
                self.contexts[column].eq(context & (flat % self._columns == column)),
                self.memories[column].eq(~context & (flat // self._words == column)),
            ]
        return m
