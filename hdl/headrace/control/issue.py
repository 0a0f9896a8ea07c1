"""Issue: the commands of one engine, in order, when their tokens are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import NpuConfig
from headrace.interfaces import ErrorLayout
from headrace.isa import COMMAND_BITS, Cause, Command

from .dispatch import QueuedLayout, lowest

__all__ = ["IssueLayout", "IssueUnit", "Limit", "PatchLayout", "limits_of", "used_bits"]

IssueLayout = data.StructLayout({"index": 16, "cmd": COMMAND_BITS})
PatchLayout = data.StructLayout({"enable": 1, "shift": 5, "register": 4, "word": 5, "zero": 1})
FIRST_PAYLOAD_WORD = 4


@dataclass(frozen=True)
class Limit:
    """A field whose legal values on this machine, low..high, are fewer than its bits can hold."""

    opcode: int
    offset: int
    width: int
    signed: bool
    low: int
    high: int


def limits_of(command: Command, config: NpuConfig) -> tuple[Limit, ...]:
    """The limits of a command's fields that need checking on this machine."""
    out = []
    for f in command.fields:
        low, high = f.limits(config)
        widest = (-(1 << (f.width - 1)), (1 << (f.width - 1)) - 1) if f.signed else (0, (1 << f.width) - 1)
        if (low, high) != widest:
            out.append(Limit(command.opcode, f.offset, f.width, f.signed, low, high))
    return tuple(out)


def used_bits(commands: Sequence[Command]) -> int:
    """Bits of the 32-bit words that hold a field of any of the commands."""
    return -(-max(c.defined_mask for c in commands).bit_length() // 32) * 32


class IssueUnit(wiring.Component):
    """One engine's issuer.

    For the command at the head of `queue`: wait until every token of `wait` is available and take them; apply patch0,
    then patch1; check; offer the command to the engine. When the engine reports `done`, the oldest command in flight
    signals its tokens. At most `in_flight` commands are issued and not done.

    Errors hold until reset and stop the unit. MALFORMED, first that applies: the lowest reserved bit set; a patch
    (its own offset) that is enabled and names a header word, a missing register, or has bit 15 set; the first field,
    in order of offsets, outside its limits after patching. TOKEN, when a token signalled is full. `halt` keeps the
    unit from taking tokens and offering commands (an offer already made stands until reset).
    """

    LATENCY = 2  # cycles from taking the tokens to issue.valid
    PATCHED_LATENCY = 4  # the same with patches

    def __init__(
        self, *, commands: Sequence[Command], limits: Sequence[Limit], scalars: int, in_flight: int = 4
    ) -> None:
        self._limits, self._in_flight, self._scalars = tuple(limits), in_flight, scalars
        self._bits = used_bits(commands)
        self._fields = {name: commands[0][name] for name in ("opcode", "wait", "signal", "patch0", "patch1")}
        super().__init__(
            {
                "queue": In(stream.Signature(QueuedLayout)),
                "halt": In(1),
                "available": In(32),
                "take": Out(32),
                "full": In(32),
                "signal": Out(32),
                "scalars": In(data.ArrayLayout(32, scalars)),
                "issue": Out(stream.Signature(IssueLayout)),
                "done": In(1),
                "idle": Out(1),
                "begin": Out(1),
                "begin_index": Out(16),
                "end": Out(1),
                "end_index": Out(16),
                "error": Out(ErrorLayout),
            }
        )

    def _slice(self, command: Signal, name: str) -> Signal:
        f = self._fields[name]
        return command[f.offset : f.offset + f.width]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, index = Signal(self._bits), Signal(16)
        fault, fault_at = Signal(), Signal(range(COMMAND_BITS))
        second = Signal()
        flight = fifo.SyncFIFO(width=48, depth=self._in_flight)
        m.submodules.flight = flight
        queued = self.queue.payload
        wait = self._slice(queued.cmd, "wait")
        patches = [data.View(PatchLayout, self._slice(command, name)) for name in ("patch0", "patch1")]
        m.d.comb += [self.issue.payload.index.eq(index), self.issue.payload.cmd.eq(command), self.begin_index.eq(index)]
        waiting = Signal()
        m.d.comb += self.idle.eq(waiting & ~self.queue.valid & ~flight.r_rdy)
        with m.FSM():
            with m.State("WAIT"):
                m.d.comb += waiting.eq(1)
                with m.If(self.queue.valid & ~self.halt & ((wait & ~self.available) == 0)):
                    m.d.comb += [self.take.eq(wait), self.queue.ready.eq(1)]
                    m.d.sync += [command.eq(queued.cmd), index.eq(queued.index), second.eq(0)]
                    m.d.sync += [fault.eq(queued.reserved_bad), fault_at.eq(queued.reserved_at)]
                    queued_patches = [data.View(PatchLayout, self._slice(queued.cmd, f"patch{i}")) for i in range(2)]
                    with m.If(queued_patches[0].enable | queued_patches[1].enable):
                        m.next = "PATCH"
                    with m.Else():
                        m.next = "CHECK"
            with m.State("PATCH"):
                self._patch(m, command, patches, second, fault, fault_at)
                m.d.sync += second.eq(1)
                with m.If(second):
                    m.next = "CHECK"
            with m.State("CHECK"):
                self._check(m, command, fault, fault_at)
                m.next = "ISSUE"
            with m.State("ISSUE"):
                with m.If(fault):
                    m.d.comb += self._malformed(index, fault_at)
                with m.Else():
                    offered = Signal()
                    m.d.comb += self.issue.valid.eq((flight.w_rdy & ~self.halt) | offered)
                    m.d.sync += offered.eq(self.issue.valid & ~self.issue.ready)
                    with m.If(self.issue.valid & self.issue.ready):
                        m.d.comb += [flight.w_en.eq(1), self.begin.eq(1)]
                        m.next = "WAIT"
        m.d.comb += flight.w_data.eq(Cat(index, self._slice(command, "signal")))
        self._retire(m, flight)
        return m

    def _patch(
        self,
        m: Module,
        command: Signal,
        patches: list[data.View],
        second: Signal,
        fault: Signal,
        fault_at: Signal,
    ) -> None:
        """Apply patch0, or patch1 when `second`, to the command held."""
        patch = Signal(PatchLayout)
        m.d.comb += patch.eq(Mux(second, patches[1].as_value(), patches[0].as_value()))
        scalar, total = Signal(32), Signal(32)
        m.d.comb += [
            scalar.eq(self.scalars[patch.register]),
            total.eq(command.word_select(patch.word, 32) + (scalar << patch.shift)[:32]),
        ]
        bad = Signal()
        m.d.comb += bad.eq((patch.word < FIRST_PAYLOAD_WORD) | (patch.register >= self._scalars) | patch.zero)
        with m.If(patch.enable & ~bad):
            m.d.sync += command.word_select(patch.word, 32).eq(total)
        with m.If(patch.enable & bad & ~fault):
            offsets = [self._fields[f"patch{i}"].offset for i in range(2)]
            m.d.sync += [fault.eq(1), fault_at.eq(Mux(second, offsets[1], offsets[0]))]

    def _check(self, m: Module, command: Signal, fault: Signal, fault_at: Signal) -> None:
        """Judge every limited field of the command held; an earlier fault stands."""
        limits = sorted(self._limits, key=lambda limit: limit.offset)
        bad = Signal(max(1, len(limits)))
        for i, limit in enumerate(limits):
            value = Signal(signed(limit.width) if limit.signed else unsigned(limit.width), name=f"value_{i}")
            m.d.comb += [
                value.eq(command[limit.offset : limit.offset + limit.width]),
                bad[i].eq(
                    (self._slice(command, "opcode") == limit.opcode) & ((value < limit.low) | (value > limit.high))
                ),
            ]
        at = Signal(range(COMMAND_BITS))
        for i, limit in reversed(list(enumerate(limits))):
            with m.If(bad[i] & ((bad & ((1 << i) - 1)) == 0)):
                m.d.comb += at.eq(limit.offset)
        with m.If(~fault):
            m.d.sync += [fault.eq(bad.any()), fault_at.eq(at)]

    def _malformed(self, index: Signal, fault_at: Signal) -> list:
        error = self.error
        return [
            error.valid.eq(1),
            error.cause.eq(Cause.MALFORMED),
            error.index.eq(index),
            error.address.eq(fault_at),
        ]

    def _retire(self, m: Module, flight: fifo.SyncFIFO) -> None:
        """Signal the tokens of the oldest command in flight when the engine is done with it."""
        index, mask = flight.r_data[:16], flight.r_data[16:]
        overflow, overflow_index, overflow_token = Signal(), Signal(16), Signal(range(32))
        lost = Signal(32)
        m.d.comb += [
            lost.eq(mask & self.full),
            flight.r_en.eq(self.done),
            self.end.eq(self.done),
            self.end_index.eq(index),
        ]
        with m.If(self.done):
            m.d.comb += self.signal.eq(mask)
            with m.If(lost.any() & ~overflow):
                m.d.sync += [
                    overflow.eq(1),
                    overflow_index.eq(index),
                    overflow_token.eq(lowest(lost)),
                ]
        with m.If(overflow):
            m.d.comb += [
                self.error.valid.eq(1),
                self.error.cause.eq(Cause.TOKEN),
                self.error.index.eq(overflow_index),
                self.error.address.eq(overflow_token),
            ]
