"""Dispatch: every fetched command to the queue of its engine."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ErrorLayout
from headrace.isa import COMMAND_BITS, COMMANDS, Cause, Engine

from .fetch import FetchedLayout

__all__ = ["Dispatch", "QueuedLayout"]

WORDS = COMMAND_BITS // 32

QueuedLayout = data.StructLayout(
    {
        "index": 16,
        "cmd": COMMAND_BITS,
        "reserved_bad": 1,  # a bit outside the command's fields is set
        "reserved_at": 10,  # the lowest such bit
    }
)


class Dispatch(wiring.Component):
    """Routes commands by opcode, in ring order, one every four cycles at most.

    o[e] is the queue of engine e (`Engine`); a full one holds up everything behind. A CONTROL command is handed on
    and completes (`control_idle`) before the next command is looked at. Reserved bits are judged here, before any
    patch, and reported by the engine's issuer in its turn; an unknown opcode is an error (MALFORMED, offset 0) at
    once, and the end until reset.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "run": In(1),
                "i": In(stream.Signature(FetchedLayout)),
                "o": Out(stream.Signature(QueuedLayout)).array(len(Engine)),
                "control_idle": In(1),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = self.i.payload.cmd
        engine, known, reserved = self._lookup(m, command)
        bad_word, bad_bit = Signal(range(WORDS)), Signal(5)
        bad, selected = Signal(), Signal(32)
        stray, stray_words = Signal(COMMAND_BITS), Signal(WORDS)
        m.d.comb += [
            stray.eq(command & reserved),
            stray_words.eq(Cat(stray.word_select(i, 32).any() for i in range(WORDS))),
            selected.eq(stray.word_select(bad_word, 32)),
        ]
        for o in self.o:
            m.d.comb += [
                o.payload.index.eq(self.i.payload.index),
                o.payload.cmd.eq(command),
                o.payload.reserved_bad.eq(bad),
                o.payload.reserved_at.eq(Cat(bad_bit, bad_word)),
            ]
        with m.FSM():
            with m.State("WORD"):
                m.d.sync += [bad_word.eq(lowest(stray_words)), bad.eq(stray_words.any())]
                with m.If(self.i.valid & self.run):
                    m.next = "BIT"
            with m.State("BIT"):
                m.d.sync += bad_bit.eq(lowest(selected))
                m.next = "SEND"
            with m.State("SEND"):
                self._send(m, engine, known)
            with m.State("CONTROL"), m.If(self.control_idle):
                m.next = "WORD"
            with m.State("ERROR"):
                m.d.comb += [self.error.valid.eq(1), self.error.cause.eq(Cause.MALFORMED)]
                m.d.comb += self.error.index.eq(self.i.payload.index)
        return m

    def _lookup(self, m: Module, command: Signal) -> tuple[Signal, Signal, Signal]:
        """Engine, whether the opcode exists, and the reserved bits, of the command offered."""
        engine, known, reserved = Signal(Engine), Signal(), Signal(COMMAND_BITS)
        with m.Switch(command[:8]):
            for c in COMMANDS:
                with m.Case(c.opcode):
                    unused = ((1 << COMMAND_BITS) - 1) & ~c.defined_mask
                    m.d.comb += [engine.eq(c.engine), known.eq(1), reserved.eq(Const(unused, COMMAND_BITS))]
        return engine, known, reserved

    def _send(self, m: Module, engine: Signal, known: Signal) -> None:
        with m.If(~known):
            m.next = "ERROR"
        for e in Engine:
            with m.If(known & (engine == e)):
                m.d.comb += [self.o[e].valid.eq(1), self.i.ready.eq(self.o[e].ready)]
                with m.If(self.o[e].ready):
                    m.next = "CONTROL" if e is Engine.CONTROL else "WORD"


def lowest(bits: Signal) -> Value:
    """Number of the lowest set bit, 0 when none is set."""
    value: Value = Const(0, range(len(bits)))
    for i, bit in reversed(list(enumerate(bits))):
        value = Mux(bit, i, value)
    return value
