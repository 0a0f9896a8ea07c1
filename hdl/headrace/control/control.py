"""The control block: everything between the host's registers, the command ring and the engines."""

from amaranth import Cat, Module, ResetInserter
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.config import NpuConfig
from headrace.interfaces import BurstRead, EnginePort, ErrorLayout
from headrace.isa import COMMANDS, Command, Engine
from headrace.memory.windows import WindowLayout
from headrace.registers import COUNTERS, identity, register_map

from .axil import AxiLite, AxiLiteSlave
from .counters import Counters
from .csr import CsrBank
from .dispatch import Dispatch
from .fetch import Fetch
from .halt import HaltControl
from .issue import IssueUnit, limits_of, used_bits
from .local import LocalEngine
from .tokens import Tokens

__all__ = ["ENGINES", "Control", "EventsLayout"]

ENGINES = tuple(e for e in Engine if e is not Engine.CONTROL)
FAILURES = 18  # of CONTROL, of each engine's issuer, of each engine, of the three engines on the bus
OWN_FAILURES = 3  # of dispatch, of CONTROL's issuer, and of the reader on behalf of fetch
_OWN_EVENTS = {"CYCLES", *(f"BUSY_{e.name}" for e in ENGINES)}

EventsLayout = data.StructLayout({name.lower(): 1 for name, _ in COUNTERS if name not in _OWN_EVENTS})
"""Counter events which other blocks raise, each for every cycle it holds."""


def commands_of(engine: Engine) -> tuple[Command, ...]:
    """Commands an engine executes."""
    return tuple(c for c in COMMANDS if c.engine is engine)


class Control(wiring.Component):
    """Registers, command fetch, dispatch, tokens, failure handling.

    Ports:
        axil, irq: the host. `irq` is a level, IRQ_STATUS and IRQ_ENABLE.
        fetch: client of the AXI reader.
        load, weight, store, mac, epilogue, vector: the engines, in the order of `Engine`.
        flush: one cycle; resets the engines and all they contain, at once, while the bus is quiet.
        halt: to reader and writer (engines have it in their port): accept no more requests.
        reader_idle, writer_idle: nothing in flight.
        fetch_error, load_error, weight_error, store_error: from the reader and the writer; one cycle is enough.
        windows: what the host allows, for reader and writer.
        events: for the counters. progress: a beat, write or product happened, for the watchdog.
        trace_begin, trace_end: bit e: engine e is given a command, has completed one.
        trace_begin_index, trace_end_index: its index, 16 bits an engine.
    """

    def __init__(self, *, config: NpuConfig) -> None:
        self._config = config
        engines = {e.name.lower(): Out(EnginePort(commands_of(e)[0])) for e in ENGINES}
        super().__init__(
            {
                "axil": In(AxiLite()),
                "irq": Out(1),
                "fetch": Out(BurstRead(axi_bytes=config.axi_bytes)),
                **engines,
                "flush": Out(1),
                "halt": Out(1),
                "reader_idle": In(1),
                "writer_idle": In(1),
                **{f"{user}_error": In(ErrorLayout) for user in ("fetch", "load", "weight", "store")},
                "windows": Out(data.ArrayLayout(WindowLayout, config.windows)),
                "events": In(EventsLayout),
                "progress": In(1),
                "trace_begin": Out(len(ENGINES)),
                "trace_end": Out(len(ENGINES)),
                "trace_begin_index": Out(16 * len(ENGINES)),
                "trace_end_index": Out(16 * len(ENGINES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.axil = slave = AxiLiteSlave()
        m.submodules.csr = csr = CsrBank(regs=register_map(windows=config.windows, scalars=config.scalars))
        m.submodules.halt = halt = HaltControl(sources=FAILURES, own=OWN_FAILURES)
        m.submodules.local = local = LocalEngine(scalars=config.scalars)
        fetch = Fetch(axi_bytes=config.axi_bytes, burst_beats=config.burst_beats)
        dispatch = Dispatch()
        tokens = Tokens(tokens=config.tokens, units=len(Engine))
        units = {e: self._issue_unit(e) for e in Engine}
        queues = {e: fifo.SyncFIFOBuffered(width=_queue_bits(e), depth=config.queue_depth) for e in ENGINES}
        m.submodules.fetch = ResetInserter(halt.flush)(fetch)
        m.submodules.dispatch = ResetInserter(halt.flush)(dispatch)
        m.submodules.tokens = ResetInserter(halt.flush)(tokens)
        for e, unit in units.items():
            m.submodules[f"issue_{e.name.lower()}"] = ResetInserter(halt.flush)(unit)
        for e, queue in queues.items():
            m.submodules[f"queue_{e.name.lower()}"] = ResetInserter(halt.flush)(queue)

        connect(m, flipped(self.axil), slave.bus)
        connect(m, slave.regs, csr.bus)
        connect(m, fetch.bus, flipped(self.fetch))
        connect(m, fetch.o, dispatch.i)
        connect(m, units[Engine.CONTROL].issue, local.i)
        connect(m, dispatch.o[Engine.CONTROL], units[Engine.CONTROL].queue)
        for e in ENGINES:
            self._queue(m, dispatch.o[e], queues[e], units[e])
            self._engine(m, getattr(self, e.name.lower()), units[e], halt)
        self._registers(m, csr, halt, fetch, local)
        self._units(m, csr, units, tokens, halt)
        self._failures(m, dispatch, units, halt)

        quiet = [units[e].idle & (queues[e].level == 0) & ~getattr(self, e.name.lower()).busy for e in ENGINES]
        m.d.comb += [
            local.quiet.eq(Cat(quiet).all() & halt.run),
            units[Engine.CONTROL].done.eq(local.done),
            fetch.run.eq(halt.run),
            dispatch.run.eq(halt.run),
            dispatch.control_idle.eq(units[Engine.CONTROL].idle),
            halt.start.eq(fetch.head != csr.ring_tail),
            halt.ended.eq(local.ended),
            halt.position.eq(fetch.head),
            halt.reader_idle.eq(self.reader_idle),
            halt.writer_idle.eq(self.writer_idle),
            self.flush.eq(halt.flush),
            self.halt.eq(halt.halt),
        ]
        self._counters(m, csr, halt)
        return m

    def _issue_unit(self, engine: Engine) -> IssueUnit:
        commands = commands_of(engine)
        limits = [limit for c in commands for limit in limits_of(c, self._config)]
        return IssueUnit(commands=commands, limits=limits, scalars=self._config.scalars)

    def _queue(self, m: Module, source: wiring.PureInterface, queue: fifo.SyncFIFOBuffered, unit: IssueUnit) -> None:
        """Queue of one engine; bits beyond its commands' last field are judged before and not kept."""
        given, kept = source.payload, unit.queue.payload
        bits = len(queue.w_data) - _QUEUE_EXTRA
        m.d.comb += [
            queue.w_data.eq(Cat(given.index, given.reserved_bad, given.reserved_at, given.cmd[:bits])),
            queue.w_en.eq(source.valid),
            source.ready.eq(queue.w_rdy),
            Cat(kept.index, kept.reserved_bad, kept.reserved_at, kept.cmd).eq(queue.r_data),
            unit.queue.valid.eq(queue.r_rdy),
            queue.r_en.eq(unit.queue.ready),
        ]

    def _engine(self, m: Module, port: wiring.PureInterface, unit: IssueUnit, halt: HaltControl) -> None:
        m.d.comb += [
            port.issue.valid.eq(unit.issue.valid),
            port.issue.payload.index.eq(unit.issue.payload.index),
            port.issue.payload.cmd.eq(unit.issue.payload.cmd),
            unit.issue.ready.eq(port.issue.ready),
            unit.done.eq(port.done),
            port.halt.eq(halt.halt),
        ]

    def _registers(self, m: Module, csr: CsrBank, halt: HaltControl, fetch: Fetch, local: LocalEngine) -> None:
        control = register_map(windows=1, scalars=1)["CONTROL"]
        m.d.comb += [getattr(csr, name.lower()).eq(value) for name, value in identity(self._config).items()]
        m.d.comb += [
            halt.reset.eq(csr.control[control["reset"].lsb]),
            halt.abort.eq(csr.control[control["abort"].lsb]),
            csr.status.eq(halt.state),
            csr.irq_status_set.eq(Cat(local.ended & halt.run, halt.error_irq)),
            self.irq.eq((csr.irq_status & csr.irq_enable).any()),
            fetch.base.eq(Cat(csr.ring_base_lo, csr.ring_base_hi)),
            fetch.size.eq(csr.ring_size),
            fetch.tail.eq(csr.ring_tail),
            csr.ring_head.eq(fetch.head),
            csr.ring_tail_load.eq(halt.flush),
            halt.watchdog.eq(csr.watchdog),
            csr.end_value.eq(local.value),
            csr.err_cause.eq(halt.first.cause),
            csr.err_index.eq(halt.first.index),
            csr.err_engine.eq(halt.first.engine),
            csr.err_address_lo.eq(halt.first.address[:32]),
            csr.err_address_hi.eq(halt.first.address[32:]),
        ]
        for i in range(self._config.windows):
            flags = getattr(csr, f"window{i}_flags")
            m.d.comb += [
                self.windows[i].base.eq(getattr(csr, f"window{i}_base")),
                self.windows[i].limit.eq(getattr(csr, f"window{i}_limit")),
                self.windows[i].read.eq(flags[0]),
                self.windows[i].write.eq(flags[1]),
            ]
        for i in range(self._config.scalars):
            m.d.comb += [
                local.scalars[i].eq(getattr(csr, f"scalar{i}")),
                getattr(csr, f"scalar{i}_load").eq(local.write & (local.write_index == i)),
                getattr(csr, f"scalar{i}_next").eq(local.write_data),
            ]

    def _units(
        self, m: Module, csr: CsrBank, units: dict[Engine, IssueUnit], tokens: Tokens, halt: HaltControl
    ) -> None:
        """What every issue unit shares: tokens, scalars, halt, progress; and the trace of the engines'."""
        for e, unit in units.items():
            m.d.comb += [
                unit.halt.eq(~halt.run),
                unit.available.eq(tokens.available),
                unit.full.eq(tokens.full),
                tokens.take[e].eq(unit.take),
                tokens.signal[e].eq(unit.signal),
            ]
            m.d.comb += [unit.scalars[i].eq(getattr(csr, f"scalar{i}")) for i in range(self._config.scalars)]
        m.d.comb += [
            self.trace_begin.eq(Cat(units[e].begin for e in ENGINES)),
            self.trace_end.eq(Cat(units[e].end for e in ENGINES)),
            self.trace_begin_index.eq(Cat(units[e].begin_index for e in ENGINES)),
            self.trace_end_index.eq(Cat(units[e].end_index for e in ENGINES)),
            halt.progress.eq(self.progress | Cat((u.begin, u.end) for u in units.values()).any()),
        ]

    def _failures(self, m: Module, dispatch: Dispatch, units: dict[Engine, IssueUnit], halt: HaltControl) -> None:
        """All sources of errors in order of priority: control's, then engine by engine."""
        sources: list[tuple[Engine, data.View]] = [
            (Engine.CONTROL, dispatch.error),
            (Engine.CONTROL, units[Engine.CONTROL].error),
            (Engine.CONTROL, self.fetch_error),
        ]
        for e in ENGINES:
            name = e.name.lower()
            sources += [(e, units[e].error), (e, getattr(self, name).error)]
            if f"{name}_error" in self.signature.members:
                sources.append((e, getattr(self, f"{name}_error")))
        for i, (engine, error) in enumerate(sources):
            failure = halt.failures[i]
            m.d.comb += [
                failure.valid.eq(error.valid),
                failure.cause.eq(error.cause),
                failure.engine.eq(engine),
                failure.index.eq(error.index),
                failure.address.eq(error.address),
            ]

    def _counters(self, m: Module, csr: CsrBank, halt: HaltControl) -> None:
        m.submodules.counters = counters = Counters(count=len(COUNTERS))
        control = register_map(windows=1, scalars=1)["CONTROL"]
        own = {"CYCLES": halt.run, **{f"BUSY_{e.name}": getattr(self, e.name.lower()).busy for e in ENGINES}}
        m.d.comb += [
            counters.snapshot.eq(csr.control[control["snapshot"].lsb]),
            counters.clear.eq(csr.control[control["clear"].lsb]),
        ]
        for i, (name, _) in enumerate(COUNTERS):
            event = own[name] if name in own else self.events[name.lower()]
            if name.startswith("BUS_IDLE"):  # what is idle outside a run is no loss
                event = event & halt.run
            m.d.comb += [
                counters.events[i].eq(event),
                getattr(csr, f"{name.lower()}_lo").eq(counters.values[i][:32]),
                getattr(csr, f"{name.lower()}_hi").eq(counters.values[i][32:]),
            ]


_QUEUE_EXTRA = 27  # index, reserved_bad, reserved_at of `QueuedLayout`


def _queue_bits(engine: Engine) -> int:
    return _QUEUE_EXTRA + used_bits(commands_of(engine))
