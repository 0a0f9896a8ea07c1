"""The MAC engine: executes MAC commands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import AccDrain, EnginePort, RingRead, SpadBankRead
from headrace.isa import Cause
from headrace.isa.commands import MAC
from headrace.mac.array import MacArray
from headrace.mac.feeder import Feeder
from headrace.mac.jobs import FEED_JOB, WEIGHT_JOB, copy_job
from headrace.mac.rows import RowWalker
from headrace.mac.tiles import TileBuffers
from headrace.mac.weights import WeightFetch
from headrace.memory.fifo import StreamFifo

__all__ = ["MacEngine"]


class MacEngine(wiring.Component):
    """MAC commands (loop nest: `headrace.isa`), one array phase a cycle.

    Two queues meet at the array: activation vectors, one a step, from the row walker and the feeder; and weight entries
    from the ring. A step takes a vector, both phases of the entry in front, and goes to the accumulators of the current
    buffer. A vector says where its entry and its tile end, so that the array needs no loop of its own.

        issue -> RowWalker -> Feeder -> vectors --+
              -> WeightFetch ---------> entries --+-> MacArray -> TileBuffers -> drain

    A command is accepted as soon as the row walker has written the tables of the one before; QUEUE commands may be in
    progress. Entries, row groups, tiles and commands follow each other without a gap as long as vectors, entries and a
    buffer are there. `done` comes with the last accumulation of a command.

    Errors RANGE (address: the word), RING_TAG (the tag found) and OVERFLOW (0) stop the engine until reset; `halt`
    stops reads and the array.

    Events, for counters: `mac_active`, a phase is computed; when none is although a command is in progress, the reason:
    `wait_acc` (both buffers wait to be drained), `wait_weight`, `wait_act`.
    """

    QUEUE = 4

    def __init__(self, *, rows: int, cols: int, lanes: int, accs: int, bank_words: int, ring_entries: int) -> None:
        self._rows = rows
        self._cols = cols
        self._lanes = lanes
        self._accs = accs
        self._bank_words = bank_words
        self._ring_entries = ring_entries
        word_bytes = 2 * lanes
        super().__init__(
            {
                "port": In(EnginePort(MAC)),
                "banks": Out(SpadBankRead(words=bank_words, word_bytes=word_bytes)).array(rows),
                "ring": Out(RingRead(cols=cols, word_bytes=word_bytes, entries=ring_entries)),
                "drain": In(AccDrain(rows=rows, cols=cols, accs=accs)),
                "mac_active": Out(1),
                "wait_weight": Out(1),
                "wait_act": Out(1),
                "wait_acc": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = RowWalker(rows=self._rows, accs=self._accs)
        m.submodules.feeder = feeder = Feeder(
            rows=self._rows, lanes=self._lanes, accs=self._accs, bank_words=self._bank_words
        )
        m.submodules.weights = weights = WeightFetch(
            cols=self._cols, lanes=self._lanes, ring_entries=self._ring_entries
        )
        m.submodules.array = array = MacArray(rows=self._rows, cols=self._cols, lanes=self._lanes, accs=self._accs)
        m.submodules.buffers = buffers = TileBuffers(accs=self._accs)
        m.submodules.commands = commands = StreamFifo(shape=16, depth=self.QUEUE)  # indices of those in progress
        stop, finished = Signal(), Signal()
        wiring.connect(m, walker.tile, feeder.tile)
        m.d.comb += [walker.t.eq(feeder.t), feeder.row.eq(walker.row), feeder.stop.eq(stop), weights.stop.eq(stop)]
        for ours, theirs in zip(self.banks, feeder.banks):
            m.d.comb += [ours.en.eq(theirs.en), ours.addr.eq(theirs.addr), theirs.data.eq(ours.data)]
        self._connect_ring(m, weights)
        self._issue(m, walker, feeder, weights, commands)
        self._step(m, feeder, weights, array, buffers, stop, finished)
        self._drain(m, array, buffers)
        m.d.comb += [
            commands.o.ready.eq(finished),
            self.port.done.eq(finished),
            self.port.busy.eq(commands.o.valid),
            stop.eq(self.port.halt | self.port.error.valid),
        ]
        self._errors(m, feeder, weights, array, commands)
        return m

    def _connect_ring(self, m: Module, weights: WeightFetch) -> None:
        m.d.comb += [
            self.ring.en.eq(weights.ring.en),
            self.ring.offset.eq(weights.ring.offset),
            self.ring.release.eq(weights.ring.release),
            weights.ring.codes.eq(self.ring.codes),
            weights.ring.tag.eq(self.ring.tag),
            weights.ring.level.eq(self.ring.level),
        ]

    def _issue(self, m: Module, walker: RowWalker, feeder: Feeder, weights: WeightFetch, commands: StreamFifo) -> None:
        """Give each stage its part of a command once all of them have room for it."""
        m.submodules.feed_jobs = feed_jobs = StreamFifo(shape=FEED_JOB, depth=self.QUEUE)
        m.submodules.weight_jobs = weight_jobs = StreamFifo(shape=WEIGHT_JOB, depth=self.QUEUE)
        wiring.connect(m, feed_jobs.o, feeder.job)
        wiring.connect(m, weight_jobs.o, weights.job)
        issue: Any = self.port.issue
        take = Signal()
        # No queue of jobs is fuller than that of the commands in progress.
        m.d.comb += [
            issue.ready.eq(walker.job.ready & commands.i.ready & ~self.port.halt),
            take.eq(issue.valid & issue.ready),
            commands.i.payload.eq(issue.payload.index),
            commands.i.valid.eq(take),
            walker.job.valid.eq(take),
            feed_jobs.i.valid.eq(take),
            weight_jobs.i.valid.eq(take),
            *copy_job(walker.job.payload, issue.payload),
            *copy_job(feed_jobs.i.payload, issue.payload),
            *copy_job(weight_jobs.i.payload, issue.payload),
        ]

    def _step(
        self, m: Module, feeder: Feeder, weights: WeightFetch, array: MacArray, buffers: TileBuffers,
        stop: Signal, finished: Signal,
    ) -> None:  # fmt: skip
        """Both phases of a step: operands to the array, and what the end of the step completes."""
        phase, tile_start, ready, step_end = Signal(), Signal(), Signal(), Signal()
        vector: Any = feeder.o.payload
        step = vector.step
        m.d.comb += [
            tile_start.eq(step.first & (step.t == 0) & ~phase),
            ready.eq(feeder.o.valid & weights.o.valid & (buffers.free | ~tile_start)),
            array.step.eq(ready & ~stop),
            array.restart.eq(~phase),
            array.finish.eq(phase),
            array.overwrite.eq(step.first),
            array.t.eq(step.t),
            array.buffer.eq(buffers.buffer),
            buffers.start.eq(array.step & tile_start),
            step_end.eq(array.step & phase),
            feeder.o.ready.eq(step_end),
            weights.o.ready.eq(step_end & step.entry_last),
            self.mac_active.eq(array.step),
            self.wait_acc.eq(feeder.o.valid & weights.o.valid & ~ready),
            self.wait_weight.eq(feeder.o.valid & ~weights.o.valid),
            self.wait_act.eq(self.port.busy & ~feeder.o.valid),
        ]
        m.d.sync += phase.eq(phase ^ array.step)
        half = 8 * self._lanes
        for r in range(self._rows):
            m.d.comb += array.a[r].eq(Mux(phase, vector.words[r][half:], vector.words[r][:half]))
        for c in range(self._cols):
            word = weights.o.payload[c]
            m.d.comb += array.w[c].eq(Mux(phase, word[half:], word[:half]))

        end = data.StructLayout({"tile": 1, "command": 1, "t_used": range(self._accs + 1)})
        ends = [Signal(end, name=f"end_{i}") for i in range(array.LATENCY + 1)]
        m.d.comb += [
            ends[0].tile.eq(step_end & step.tile_last),
            ends[0].command.eq(step_end & step.last),
            ends[0].t_used.eq(step.t + 1),
            # The buffers offer the tile a cycle later, when the array admits its first drain read.
            buffers.finish.eq(ends[array.DRAIN_LATENCY - 1].tile),
            buffers.t_used.eq(ends[array.DRAIN_LATENCY - 1].t_used),
            finished.eq(ends[-1].command),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(ends)]

    def _drain(self, m: Module, array: MacArray, buffers: TileBuffers) -> None:
        m.d.comb += [
            self.drain.tile.valid.eq(buffers.tile.valid),
            self.drain.tile.payload.eq(buffers.tile.payload),
            buffers.tile.ready.eq(self.drain.tile.ready),
            array.drain_en.eq(self.drain.en),
            array.drain_buffer.eq(self.drain.buffer),
            array.drain_t.eq(self.drain.t),
            array.drain_row.eq(self.drain.row),
            self.drain.data.eq(array.drain_data),
        ]

    def _errors(self, m: Module, feeder: Feeder, weights: WeightFetch, array: MacArray, commands: StreamFifo) -> None:
        """Keep the first error."""
        error = Signal(self.port.error.shape())
        m.d.comb += self.port.error.eq(error)
        with m.If(~error.valid):
            with m.If(array.overflow):
                m.d.sync += [error.valid.eq(1), error.cause.eq(Cause.OVERFLOW), error.index.eq(commands.o.payload)]
            with m.Elif(weights.tag_error):
                m.d.sync += [error.valid.eq(1), error.cause.eq(Cause.RING_TAG)]
                m.d.sync += [error.index.eq(weights.error_index), error.address.eq(weights.error_tag)]
            with m.Elif(feeder.range_error):
                m.d.sync += [error.valid.eq(1), error.cause.eq(Cause.RANGE)]
                m.d.sync += [error.index.eq(feeder.error_index), error.address.eq(feeder.error_address)]
