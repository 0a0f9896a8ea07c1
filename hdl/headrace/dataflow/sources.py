"""Where beats come from: accumulator tiles and scratchpad streams."""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.config import index_bits
from headrace.dataflow.beat import CHANNEL_BITS, IDX_BITS, PIXEL_BITS, operands_layout, vector_layout
from headrace.dataflow.stream_read import StreamRead
from headrace.dataflow.walk import LoopNest, TileWalk
from headrace.interfaces import ACC_LATENCY, AccDrain, ErrorLayout, SpadRead, issued_layout
from headrace.isa import BY_NAME, Cause
from headrace.isa.layout import command_layout

__all__ = ["CHUNK", "AccumulatorRead", "EpilogueSource", "VectorSource", "view_fields"]

CHUNK = 256
"""Beats of a VECTOR pass without wraps after which an epilogue pass may run."""

_DEPTH = 16
"""Beats a source may be ahead; more than the latency of its streams."""


def view_fields(command: data.View, prefix: str) -> dict[str, Value]:
    """Fields of `View` from those of a command."""
    names = {"base": f"{prefix}_base", "plane": f"{prefix}_plane", "shift": f"{prefix}_shift"}
    return {**{k: command[v] for k, v in names.items()}, "wide": command[f"{prefix}_type"][0]}


def _fork(m: Module, valid: Value, branches: Sequence[tuple[Value, Value, Value]]) -> Signal:
    """Offer one item to several takers, each (valid, ready, wanted), which may take it in different cycles.

    The result is 1 in the cycle in which the last of them takes it.
    """
    through = Signal(len(branches))
    for i, (branch_valid, branch_ready, wanted) in enumerate(branches):
        sent = Signal(name=f"sent_{i}")
        m.d.comb += [branch_valid.eq(valid & wanted & ~sent), through[i].eq(~wanted | sent | branch_ready)]
        m.d.sync += sent.eq(valid & ~through.all() & through[i] & wanted)
    complete = Signal()
    m.d.comb += complete.eq(valid & through.all())
    return complete


def _meta_layout(*, lanes: int, contexts: int) -> data.StructLayout:
    """A beat's description, which waits for its operands."""
    return data.StructLayout(
        {
            "idx": IDX_BITS,
            "lanes": Shape.cast(range(lanes + 1)),
            "last": 1,
            "boundary": 1,
            "context": index_bits(contexts),
            "wraps": 4,
            "index": 16,
            "use_y": 1,
        }
    )


def _join(m: Module, o: wiring.PureInterface, meta: SyncFIFO, layout: data.StructLayout, x: Value, y: Value) -> None:
    """Offer a beat on `o` when its description, x and (where used) y have arrived. x, y: streams."""
    head = data.View(layout, meta.r_data)
    leaves = Signal()
    m.d.comb += [
        o.valid.eq(meta.r_rdy & x.valid & (~head.use_y | y.valid)),
        leaves.eq(o.valid & o.ready),
        meta.r_en.eq(leaves),
        x.ready.eq(leaves),
        y.ready.eq(leaves & head.use_y),
        o.payload.x.eq(x.payload),
        o.payload.y.eq(Mux(head.use_y, y.payload.as_value(), 0)),
        *(getattr(o.payload, name).eq(head[name]) for name, _ in layout if name != "use_y"),
    ]


class AccumulatorRead(wiring.Component):
    """Reads L accumulators of a row for each request and hands tiles back.

    i: t, row and block of the next beat; first and last of its tile; t_used: row groups the tile must have, else TILE
    is raised (address: those it has) and the drain stays where it is. The first beat of a tile waits for a tile. Lanes
    beyond column C are 0. One beat a cycle; two idle cycles between tiles.
    """

    BEATS = 8

    def __init__(self, *, rows: int, cols: int, accs: int, lanes: int) -> None:
        self._cols, self._lanes = cols, lanes
        self._blocks = -(-cols // lanes)
        request = {"t": index_bits(accs), "row": index_bits(rows), "block": index_bits(self._blocks)}
        marks = {"first": 1, "last": 1, "t_used": 8, "index": 16}
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({**request, **marks}))),
                "drain": Out(AccDrain(rows=rows, cols=cols, accs=accs)),
                "o": Out(stream.Signature(vector_layout(lanes))),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=32 * self._lanes, depth=self.BEATS)
        request, drain = self.i.payload, self.drain
        tile = drain.tile
        returning = Signal(ACC_LATENCY)  # the last read of a tile is on its way
        wrong, taken = Signal(), Signal()
        free = Signal(range(self.BEATS + 1), init=self.BEATS)
        m.d.comb += [
            wrong.eq(request.first & tile.valid & (tile.payload.t_used != request.t_used)),
            self.i.ready.eq(tile.valid & ~returning.any() & ~wrong & (free != 0)),
            taken.eq(self.i.valid & self.i.ready),
            drain.en.eq(taken),
            drain.buffer.eq(tile.payload.buffer),
            drain.t.eq(request.t),
            drain.row.eq(request.row),
            tile.ready.eq(returning[-1]),
            self.error.valid.eq(self.i.valid & wrong & ~returning.any()),
            self.error.cause.eq(Cause.TILE),
            self.error.index.eq(request.index),
            self.error.address.eq(tile.payload.t_used),
            self.o.valid.eq(fifo.r_rdy),
            self.o.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o.ready),
        ]
        m.d.sync += [
            returning.eq((returning << 1) | (taken & request.last)),
            free.eq(free - taken + (fifo.r_en & fifo.r_rdy)),
        ]

        valid, block = taken, request.block
        for stage in range(ACC_LATENCY):
            valid_next, next_block = Signal(name=f"valid_{stage}"), Signal.like(block, name=f"block_{stage}")
            m.d.sync += [valid_next.eq(valid), next_block.eq(block)]
            valid, block = valid_next, next_block
        m.d.comb += fifo.w_en.eq(valid)
        row = drain.data.as_value()
        width = 32 * self._lanes
        with m.Switch(block):
            for b in range(self._blocks):
                with m.Case(b):
                    m.d.comb += fifo.w_data.eq(row[width * b : width * (b + 1)])
        return m


class EpilogueSource(wiring.Component):
    """Beats of EPILOGUE commands: accumulators as x, the residual stream as y.

    `issue` takes a command while the previous one's last beat is requested. One pass a tile; `boundary` is its last
    beat. `waiting`: a tile is there.
    """

    def __init__(
        self, *, rows: int, cols: int, accs: int, lanes: int, contexts: int, words: int, word_bytes: int
    ) -> None:
        self._tile = {"rows": rows, "cols": cols, "accs": accs, "lanes": lanes}
        self._spad = {"banks": rows, "words": words, "word_bytes": word_bytes}
        self._lanes, self._contexts = lanes, contexts
        super().__init__(
            {
                "issue": In(stream.Signature(issued_layout(BY_NAME["EPILOGUE"]))),
                "drain": Out(AccDrain(rows=rows, cols=cols, accs=accs)),
                "y": Out(SpadRead(**self._spad)),
                "o": Out(stream.Signature(operands_layout(lanes=lanes, contexts=contexts))),
                "waiting": Out(1),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = _meta_layout(lanes=self._lanes, contexts=self._contexts)
        m.submodules.walk = walk = TileWalk(**self._tile)
        m.submodules.accumulators = accumulators = AccumulatorRead(**self._tile)
        m.submodules.residual = residual = StreamRead(**self._spad, lanes=self._lanes)
        m.submodules.meta = meta = SyncFIFO(width=Shape.cast(layout).width, depth=_DEPTH)
        connect(m, accumulators.drain, flipped(self.drain))
        connect(m, residual.port, flipped(self.y))

        command, index, active = Signal(command_layout(BY_NAME["EPILOGUE"])), Signal(16), Signal()
        advance, load = Signal(), Signal()
        m.d.comb += [
            self.issue.ready.eq(~active | (advance & walk.last & walk.final)),
            load.eq(self.issue.valid & self.issue.ready),
            walk.load.eq(load),
            walk.advance.eq(advance),
            *(walk_field.eq(command[name]) for name, walk_field in _tile_fields(walk)),
        ]
        with m.If(load):
            m.d.sync += [command.eq(self.issue.payload.cmd), index.eq(self.issue.payload.index)]
        with m.If(self.issue.ready):
            m.d.sync += active.eq(self.issue.valid)

        beat = Signal(layout)
        request, at = accumulators.i.payload, residual.i.payload.at
        channel = Mux(command.res_type[0], walk.channel << 2, walk.channel)
        m.d.comb += [
            beat.idx.eq(command.idx_base + walk.idx),
            beat.lanes.eq(walk.lanes),
            beat.last.eq(walk.last),
            beat.boundary.eq(walk.last),
            beat.context.eq(command.ctx),
            beat.wraps.eq(command.wraps),
            beat.index.eq(index),
            beat.use_y.eq(command.res_enable),
            meta.w_data.eq(beat),
            request.index.eq(index),
            *(getattr(request, name).eq(getattr(walk, name)) for name, _ in request.shape() if name != "index"),
            *(getattr(at.view, name).eq(value) for name, value in view_fields(command, "res").items()),
            at.pixel.eq(command.res_p0 + walk.pixel),
            at.channel.eq(command.res_c0 + channel),
            residual.i.payload.lanes.eq(walk.lanes),
            residual.i.payload.user.eq(index),
        ]
        branches = [
            (meta.w_en, meta.w_rdy, Value.cast(1)),
            (accumulators.i.valid, accumulators.i.ready, Value.cast(1)),
            (residual.i.valid, residual.i.ready, command.res_enable),
        ]
        m.d.comb += advance.eq(_fork(m, active, branches))
        _join(m, self.o, meta, layout, accumulators.o, residual.o)
        m.d.comb += self.waiting.eq(meta.r_rdy & self.drain.tile.valid)
        errors = [accumulators.error, residual.error]
        m.d.comb += self.error.eq(Mux(errors[0].valid, errors[0].as_value(), errors[1].as_value()))
        return m


def _tile_fields(walk: TileWalk) -> list[tuple[str, Value]]:
    names = ("n_tiles", "m_tiles", "m_count", "t_count", "t_last", "ilv", "channels")
    return [(name, getattr(walk, name)) for name in names]


class VectorSource(wiring.Component):
    """Beats of VECTOR commands: scratchpad streams as x and y.

    `issue` takes a command while the previous one's last beat is requested. `boundary` is the last beat of a command
    and, without wraps, every `CHUNK`-th.
    """

    def __init__(self, *, banks: int, lanes: int, contexts: int, words: int, word_bytes: int) -> None:
        self._spad = {"banks": banks, "words": words, "word_bytes": word_bytes}
        self._lanes, self._contexts = lanes, contexts
        super().__init__(
            {
                "issue": In(stream.Signature(issued_layout(BY_NAME["VECTOR"]))),
                "x": Out(SpadRead(**self._spad)),
                "y": Out(SpadRead(**self._spad)),
                "o": Out(stream.Signature(operands_layout(lanes=lanes, contexts=contexts))),
                "error": Out(ErrorLayout),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = _meta_layout(lanes=self._lanes, contexts=self._contexts)
        readers = {v: StreamRead(**self._spad, lanes=self._lanes) for v in "xy"}
        m.submodules.walk = walk = LoopNest(loops=4, widths=2 * (PIXEL_BITS, CHANNEL_BITS))
        m.submodules.meta = meta = SyncFIFO(width=Shape.cast(layout).width, depth=_DEPTH)
        command, index, active = Signal(command_layout(BY_NAME["VECTOR"])), Signal(16), Signal()
        advance, load = Signal(), Signal()
        fresh = self.issue.payload.cmd
        m.d.comb += [
            self.issue.ready.eq(~active | (advance & walk.last)),
            load.eq(self.issue.valid & self.issue.ready),
            walk.load.eq(load),
            walk.advance.eq(advance),
            *(walk.counts[i].eq(command[f"n{i}"]) for i in range(4)),
        ]
        with m.If(load):
            m.d.sync += [command.eq(fresh), index.eq(self.issue.payload.index)]
        with m.If(self.issue.ready):
            m.d.sync += active.eq(self.issue.valid)

        beat = Signal(layout)
        number = Signal(range(CHUNK))
        with m.If(load):
            m.d.sync += number.eq(0)
        with m.Elif(advance):
            m.d.sync += number.eq(number + 1)
        block, left = Signal(16), Signal(Shape.cast(range(-(1 << 21), 1 << 21)))
        m.d.comb += [
            block.eq(walk.counters[command.idx_loop]),
            left.eq(command.channels - block * self._lanes),
            beat.idx.eq(command.idx_base + block),
            beat.lanes.eq(Mux(left < 0, 0, left)),
            beat.last.eq(walk.last),
            beat.boundary.eq(walk.last | ((command.wraps == 0) & (number == CHUNK - 1))),
            beat.context.eq(command.ctx),
            beat.wraps.eq(command.wraps),
            beat.index.eq(index),
            beat.use_y.eq(command.y_enable),
            meta.w_data.eq(beat),
        ]
        with m.If((command.channels == 0) | (left >= self._lanes)):
            m.d.comb += beat.lanes.eq(self._lanes)

        branches = [(meta.w_en, meta.w_rdy, Value.cast(1))]
        for v, (prefix, reader) in enumerate(readers.items()):
            m.submodules[prefix] = reader
            connect(m, reader.port, flipped(getattr(self, prefix)))
            at = reader.i.payload.at
            for c, (kind, first) in enumerate((("p", "p0"), ("c", "c0"))):
                m.d.comb += getattr(walk, f"base_{2 * v + c}").eq(fresh[f"{prefix}_{first}"])
                steps = getattr(walk, f"steps_{2 * v + c}")
                m.d.comb += [steps[i].eq(command[f"{prefix}_d{kind}{i}"]) for i in range(4)]
            m.d.comb += [
                *(getattr(at.view, name).eq(value) for name, value in view_fields(command, prefix).items()),
                at.pixel.eq(getattr(walk, f"position_{2 * v}")),
                at.channel.eq(getattr(walk, f"position_{2 * v + 1}")),
                reader.i.payload.lanes.eq(beat.lanes),
                reader.i.payload.user.eq(index),
            ]
            wanted = command.y_enable if prefix == "y" else Value.cast(1)
            branches.append((reader.i.valid, reader.i.ready, wanted))
        m.d.comb += advance.eq(_fork(m, active, branches))
        _join(m, self.o, meta, layout, readers["x"].o, readers["y"].o)
        errors = [readers[v].error for v in "xy"]
        m.d.comb += self.error.eq(Mux(errors[0].valid, errors[0].as_value(), errors[1].as_value()))
        return m
