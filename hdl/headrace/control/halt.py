"""Running, stopping and starting again."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS, cause_shape
from headrace.isa import Cause, Engine
from headrace.registers import State

__all__ = ["FailureLayout", "HaltControl"]

FailureLayout = data.StructLayout({"valid": 1, "cause": cause_shape, "engine": 3, "index": 16, "address": ADDR_BITS})


class HaltControl(wiring.Component):
    """The machine's state, and the first error.

    IDLE: `start` leads to RUN. RUN: `ended` leads to IDLE; an error, `abort`, the watchdog or `reset` to DRAIN.
    DRAIN: `halt` is set, until reader and writer have been idle for `SETTLE` cycles; then `flush` is set for one
    cycle and the state is HALTED (with `error_irq` set in that cycle), or IDLE if the host asked for `reset`. HALTED:
    `reset` flushes once more and leads to IDLE. `flush` resets everything that queues or executes commands.

    `failures` in order of priority are looked at in RUN only; the first one is kept in `first` until `reset`.
    Watchdog and abort are failures of CONTROL at `position` and come after all of CONTROL's own and before all
    others: failures[:own] are CONTROL's. The watchdog expires after `watchdog` cycles of RUN without `progress`; 0
    turns it off.
    """

    SETTLE = 8

    def __init__(self, *, sources: int, own: int) -> None:
        self._sources, self._own = sources, own
        super().__init__(
            {
                "start": In(1),
                "ended": In(1),
                "abort": In(1),
                "reset": In(1),
                "failures": In(data.ArrayLayout(FailureLayout, sources)),
                "position": In(16),
                "watchdog": In(32),
                "progress": In(1),
                "reader_idle": In(1),
                "writer_idle": In(1),
                "state": Out(2, init=State.IDLE),
                "run": Out(1),
                "halt": Out(1),
                "flush": Out(1),
                "error_irq": Out(1),
                "first": Out(FailureLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        failure = self._select(m)
        resetting = Signal()
        settle = Signal(range(self.SETTLE + 1))
        m.d.comb += [
            self.run.eq(self.state == State.RUN),
            self.halt.eq(self.state == State.DRAIN),
            self.flush.eq((self.state == State.DRAIN) & (settle == self.SETTLE)),
            self.error_irq.eq(self.flush & ~resetting & ~self.reset),
        ]
        with m.If(self.reset & (self.state != State.IDLE)):
            m.d.sync += resetting.eq(1)
        with m.Switch(self.state):
            with m.Case(State.IDLE):
                m.d.sync += [settle.eq(0), resetting.eq(self.reset)]
                with m.If(self.reset):
                    m.d.sync += self.state.eq(State.DRAIN)
                with m.Elif(self.start):
                    m.d.sync += self.state.eq(State.RUN)
            with m.Case(State.RUN):
                m.d.sync += settle.eq(0)
                with m.If(failure.valid):
                    m.d.sync += [self.first.eq(failure), self.state.eq(State.DRAIN)]
                with m.Elif(self.reset):
                    m.d.sync += self.state.eq(State.DRAIN)
                with m.Elif(self.ended):
                    m.d.sync += self.state.eq(State.IDLE)
            with m.Case(State.DRAIN):
                with m.If(self.flush):
                    m.d.sync += self.state.eq(State.HALTED)
                    with m.If(resetting | self.reset):
                        m.d.sync += [self.state.eq(State.IDLE), self.first.eq(0)]
                with m.Elif(self.reader_idle & self.writer_idle):
                    m.d.sync += settle.eq(settle + 1)
                with m.Else():
                    m.d.sync += settle.eq(0)
            with m.Case(State.HALTED):
                m.d.sync += settle.eq(0)
                with m.If(self.reset):
                    m.d.sync += self.state.eq(State.DRAIN)
        return m

    def _select(self, m: Module) -> Signal:
        """The failure of highest priority in this cycle."""
        quiet = Signal(32)
        with m.If(~self.run | self.progress):
            m.d.sync += quiet.eq(0)
        with m.Else():
            m.d.sync += quiet.eq(quiet + 1)
        asked = Signal(data.ArrayLayout(FailureLayout, 2))
        expired = (self.watchdog != 0) & (quiet >= self.watchdog)
        for slot, cause, when in ((0, Cause.ABORT, self.abort), (1, Cause.WATCHDOG, expired)):
            m.d.comb += [
                asked[slot].valid.eq(when),
                asked[slot].cause.eq(cause),
                asked[slot].engine.eq(Engine.CONTROL),
                asked[slot].index.eq(self.position),
            ]
        given = [self.failures[i] for i in range(self._sources)]
        selected = Signal(FailureLayout)
        for source in reversed([*given[: self._own], asked[0], asked[1], *given[self._own :]]):
            with m.If(source.valid):
                m.d.comb += selected.eq(source)
        return selected
