"""The MAC engine: executes MAC commands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision
from headrace.interfaces import AccDrain, EnginePort, KcWrite, RingRead, SpadBankRead
from headrace.isa import Cause
from headrace.isa.commands import MAC
from headrace.mac.array import MacArray
from headrace.mac.feeder import Feeder
from headrace.mac.jobs import FEED_JOB, WEIGHT_JOB, copy_job
from headrace.mac.legal import LegalCheck
from headrace.mac.operands import LaneOperands
from headrace.mac.rows import RowWalker
from headrace.mac.shift_table import ShiftTable
from headrace.mac.sums import SumControl
from headrace.mac.taps import TapCollector
from headrace.mac.tiles import TileBuffers
from headrace.mac.weights import WeightFetch
from headrace.memory.fifo import StreamFifo

__all__ = ["MacEngine"]


class MacEngine(wiring.Component):
    """MAC commands (loop nest: `headrace.isa`), one array phase a cycle.

    Two queues meet at the array: activation vectors from the row walker and the feeder, and weight entries from the
    ring. A vector takes the phases of its mode with the entry in front, and goes to the accumulators of the current
    buffer. A vector says where its entry and its tile end, so that the array needs no loop of its own. Depthwise, the
    vectors of a kernel row are first put together.

        issue -> RowWalker -> Feeder -> vectors --+-> TapCollector --+
              -> WeightFetch ---------> entries --+------------------+-> MacArray -> TileBuffers -> drain

    A command is accepted as soon as the row walker has written the tables of the one before; QUEUE commands may be in
    progress. Entries, row groups, tiles and commands follow each other without a gap as long as vectors, entries and a
    buffer are there; a depthwise command after another kind loses the cycles of its first kernel row. A vector takes 2
    cycles in A8W8, 1 in A8W4 (an entry has two) and A4W4; a kernel row of a row group H or, if more, its accesses: kw,
    or (kw + 1) div 2 where neighbours share. `done` comes with the last accumulation of a command.

    Errors MALFORMED and RANGE (rules between fields: `LegalCheck`), RANGE (address: the word), RING_TAG (the tag found)
    and OVERFLOW (0) stop the engine until reset; `halt` stops reads and the array.

    Events, for counters: `mac_active`, a phase is computed; when none is although a command is in progress, the reason:
    `wait_acc` (both buffers wait to be drained), `wait_weight`, `wait_act`.
    """

    QUEUE = 4

    def __init__(
        self, *, rows: int, cols: int, lanes: int, accs: int, bank_words: int, ring_entries: int, groups: int,
        kc_words: int, multiplier: str, taps: int, halves: int,
    ) -> None:  # fmt: skip
        self._rows = rows
        self._cols = cols
        self._lanes = lanes
        self._accs = accs
        self._bank_words = bank_words
        self._ring_entries = ring_entries
        self._groups = groups
        self._kc_words = kc_words
        self._multiplier = multiplier
        self._taps = taps
        self._halves = halves
        word_bytes = 2 * lanes
        super().__init__(
            {
                "port": In(EnginePort(MAC)),
                "banks": Out(SpadBankRead(words=bank_words, word_bytes=word_bytes)).array(rows),
                "ring": Out(RingRead(cols=cols, word_bytes=word_bytes, entries=ring_entries, groups=groups)),
                "kc": In(KcWrite(elements=kc_words * -(-cols // 8))),
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
            rows=self._rows, lanes=self._lanes, accs=self._accs, bank_words=self._bank_words, taps=self._taps
        )
        m.submodules.weights = weights = WeightFetch(
            cols=self._cols,
            lanes=self._lanes,
            ring_entries=self._ring_entries,
            groups=self._groups,
            kc_words=self._kc_words,
        )
        m.submodules.array = array = MacArray(
            rows=self._rows,
            cols=self._cols,
            lanes=self._lanes,
            accs=self._accs,
            multiplier=self._multiplier,
            taps=self._taps,
        )
        m.submodules.buffers = buffers = TileBuffers(accs=self._accs)
        m.submodules.commands = commands = StreamFifo(shape=16, depth=self.QUEUE)  # indices of those in progress
        m.submodules.legal = legal = LegalCheck(
            lanes=self._lanes, accs=self._accs, kc_words=self._kc_words, taps=self._taps, halves=self._halves
        )
        stop, finished = Signal(), Signal()
        wiring.connect(m, walker.tile, feeder.tile)
        m.d.comb += [
            walker.t.eq(feeder.t),
            feeder.row.eq(walker.row),
            feeder.contiguous.eq(walker.contiguous),
            feeder.stop.eq(stop),
            weights.stop.eq(stop),
        ]
        for ours, theirs in zip(self.banks, feeder.banks):
            m.d.comb += [ours.en.eq(theirs.en), ours.addr.eq(theirs.addr)]
            m.d.comb += [theirs.data.eq(ours.data), theirs.ka.eq(ours.ka)]
        self._connect_weights(m, weights)
        take = self._issue(m, walker, feeder, weights, commands)
        self._step(m, feeder, weights, array, buffers, stop, finished)
        self._drain(m, array, buffers)
        m.d.comb += [
            commands.o.ready.eq(finished),
            self.port.done.eq(finished),
            self.port.busy.eq(commands.o.valid),
            stop.eq(self.port.halt | self.port.error.valid),
            legal.cmd.eq(self.port.issue.payload.cmd),
        ]
        self._errors(m, feeder, weights, array, commands, legal, take)
        return m

    def _connect_weights(self, m: Module, weights: WeightFetch) -> None:
        """The ring and the table of group offset shifts."""
        m.submodules.shifts = shifts = ShiftTable(cols=self._cols, words=self._kc_words)
        m.d.comb += [
            self.ring.en.eq(weights.ring.en),
            self.ring.offset.eq(weights.ring.offset),
            self.ring.release.eq(weights.ring.release),
            weights.ring.codes.eq(self.ring.codes),
            weights.ring.scales.eq(self.ring.scales),
            weights.ring.tag.eq(self.ring.tag),
            weights.ring.level.eq(self.ring.level),
            shifts.write.en.eq(self.kc.en),
            shifts.write.element.eq(self.kc.element),
            shifts.write.data.eq(self.kc.data),
            shifts.en.eq(weights.shift_en),
            shifts.word.eq(weights.shift_word),
            weights.shifts.eq(shifts.shifts),
        ]

    def _issue(
        self, m: Module, walker: RowWalker, feeder: Feeder, weights: WeightFetch, commands: StreamFifo
    ) -> Signal:
        """Give each stage its part of a command once all of them have room for it; returns when that happens."""
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
        return take

    def _step(
        self, m: Module, feeder: Feeder, weights: WeightFetch, array: MacArray, buffers: TileBuffers,
        stop: Signal, finished: Signal,
    ) -> None:  # fmt: skip
        """A phase: operands to the array, and what the end of a vector completes."""
        vector: Any = feeder.o.payload
        step = Signal(vector.step.shape())
        operation = step.operation
        phase, phase_last, half, slot = Signal(), Signal(), Signal(), Signal(array.t.shape())
        tile_start, tile_last, valid, ready = Signal(init=1), Signal(), Signal(), Signal()
        self._select(m, feeder, array, step, valid, array.step & phase_last, half)
        two = Mux(operation.depthwise, self._halves == 2, operation.mode == Precision.A8W8)
        m.d.comb += [
            phase_last.eq(phase | ~two),
            half.eq(phase | step.half),
            slot.eq(Mux(operation.depthwise, step.t * self._halves + phase, step.t) if self._taps else step.t),
            tile_last.eq(step.tile_last & phase_last),
            ready.eq(valid & weights.o.valid & (buffers.free | ~tile_start)),
            array.step.eq(ready & ~stop),
            array.mode.eq(operation.mode),
            array.scaled.eq(operation.scales),
            array.act_unsigned.eq(operation.act_unsigned),
            array.weight_unsigned.eq(operation.weight_unsigned),
            array.t.eq(slot),
            array.buffer.eq(buffers.buffer),
            array.ka.eq(vector.ka),
            buffers.start.eq(array.step & tile_start),
            weights.o.ready.eq(array.step & phase_last & step.entry_last),
            self.mac_active.eq(array.step),
            self.wait_acc.eq(valid & weights.o.valid & ~ready),
            self.wait_weight.eq(valid & ~weights.o.valid),
            self.wait_act.eq(self.port.busy & ~valid),
        ]
        with m.If(array.step):
            m.d.sync += [phase.eq(~phase_last), tile_start.eq(tile_last)]
        self._sums(m, array, step, phase_last, tile_last)
        self._lane_operands(m, array, vector.words, weights, step, half)

        end = data.StructLayout({"tile": 1, "command": 1, "t_used": range(self._accs + 1)})
        ends = [Signal(end, name=f"end_{i}") for i in range(array.LATENCY + 1)]
        m.d.comb += [
            ends[0].tile.eq(array.step & tile_last),
            ends[0].command.eq(array.step & phase_last & step.last),
            ends[0].t_used.eq(slot + 1),
            # The buffers offer the tile a cycle later, when the array admits its first drain read.
            buffers.finish.eq(ends[array.DRAIN_LATENCY - 1].tile),
            buffers.t_used.eq(ends[array.DRAIN_LATENCY - 1].t_used),
            finished.eq(ends[-1].command),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(ends)]

    def _select(
        self, m: Module, feeder: Feeder, array: MacArray, step: Any, valid: Signal, done: Value, half: Signal
    ) -> None:
        """The step in front: a vector's or, depthwise, a kernel row's, whose words go to the array. `done` ends it."""
        vector: Any = feeder.o.payload
        if not self._taps:
            m.d.comb += [step.eq(vector.step), valid.eq(feeder.o.valid), feeder.o.ready.eq(done)]
            return
        m.submodules.collector = collector = TapCollector(
            rows=self._rows, cols=self._cols, accs=self._accs, taps=self._taps, halves=self._halves
        )
        depthwise = vector.step.operation.depthwise
        row: Any = collector.o.payload
        m.d.comb += [
            step.eq(Mux(collector.busy, row.step, vector.step)),
            valid.eq(Mux(collector.busy, collector.o.valid, feeder.o.valid & ~depthwise)),
            collector.i.valid.eq(feeder.o.valid & depthwise),
            collector.i.payload.eq(vector),
            collector.o.ready.eq(done),
            feeder.o.ready.eq(Mux(depthwise, collector.i.ready, done & ~collector.busy)),
            array.depthwise.eq(step.operation.depthwise),
            array.dw.eq(Mux(half, row.operands[-1], row.operands[0]) if self._halves == 2 else row.operands[0]),
        ]

    def _sums(self, m: Module, array: MacArray, step: Any, phase_last: Signal, tile_last: Signal) -> None:
        operation = step.operation
        m.submodules.sums = sums = SumControl(lanes=self._lanes)
        m.d.comb += [
            sums.advance.eq(array.step),
            sums.operation.eq(operation),
            sums.first.eq(step.first),
            sums.group_last.eq(phase_last & (step.half | (operation.mode != Precision.A8W4)) | operation.depthwise),
            sums.tile_last.eq(tile_last),
            array.restart.eq(sums.restart),
            array.finish.eq(sums.finish),
            array.overwrite.eq(sums.overwrite),
        ]

    def _lane_operands(
        self, m: Module, array: MacArray, words: Any, weights: WeightFetch, step: Any, half: Signal
    ) -> None:
        """Codes of the phase in their lanes; scales of the group that ends with it."""
        m.submodules.lanes = lanes = LaneOperands(rows=self._rows, cols=self._cols, lanes=self._lanes, taps=self._taps)
        entry: Any = weights.o.payload
        m.d.comb += [
            lanes.mode.eq(step.operation.mode),
            lanes.half.eq(half),
            lanes.words.eq(words),
            lanes.codes.eq(entry.codes),
            array.a.eq(lanes.a),
            array.w.eq(lanes.w),
            array.kc.eq(entry.kc),
        ]
        if self._taps:
            m.d.comb += [lanes.only_taps.eq(step.operation.depthwise), lanes.taps.eq(step.taps)]
        for c in range(self._cols):
            scales = Signal(16, name=f"scales_{c}")
            of_entry = entry.scales[c]
            m.d.comb += [
                scales.eq(Mux(half, of_entry[16:32], of_entry[:16]) if self._groups > 1 else of_entry),
                array.sd[c].eq(scales[:8]),
                array.sm[c].eq(scales[8:]),
            ]

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

    def _errors(
        self, m: Module, feeder: Feeder, weights: WeightFetch, array: MacArray, commands: StreamFifo,
        legal: LegalCheck, take: Signal,
    ) -> None:  # fmt: skip
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
            with m.Elif(take & ~legal.legal):
                m.d.sync += [error.valid.eq(1), error.cause.eq(legal.cause)]
                m.d.sync += [error.index.eq(self.port.issue.payload.index), error.address.eq(legal.address)]
