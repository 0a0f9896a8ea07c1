"""Accumulators of finished tiles as a stream."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.dataflow.beat import vector_layout
from headrace.interfaces import ACC_LATENCY, AccDrain, ErrorLayout
from headrace.isa import Cause

__all__ = ["AccumulatorRead"]


class AccumulatorRead(wiring.Component):
    """Reads L accumulators of a row for each request and hands tiles back.

    i: t, row and block of the next beat; first and last of its tile; t_used: accumulators the tile must have, else TILE
    is raised (address: those it has) and the drain stays where it is. The first beat of a tile waits for a tile. Lanes
    beyond column C are 0. One beat a cycle, no gap between tiles: a tile is handed back with its last read.
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
        wrong, taken = Signal(), Signal()
        free = Signal(range(self.BEATS + 1), init=self.BEATS)
        m.d.comb += [
            wrong.eq(request.first & tile.valid & (tile.payload.t_used != request.t_used)),
            self.i.ready.eq(tile.valid & ~wrong & (free != 0)),
            taken.eq(self.i.valid & self.i.ready),
            drain.en.eq(taken),
            drain.buffer.eq(tile.payload.buffer),
            drain.t.eq(request.t),
            drain.row.eq(request.row),
            tile.ready.eq(taken & request.last),
            self.error.valid.eq(self.i.valid & wrong),
            self.error.cause.eq(Cause.TILE),
            self.error.index.eq(request.index),
            self.error.address.eq(tile.payload.t_used),
            self.o.valid.eq(fifo.r_rdy),
            self.o.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o.ready),
        ]
        m.d.sync += free.eq(free - taken + (fifo.r_en & fifo.r_rdy))

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
