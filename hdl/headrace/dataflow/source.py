"""What both sources of beats share: descriptions of beats, and how they wait for their operands."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO

from headrace.config import index_bits
from headrace.dataflow.beat import IDX_BITS
from headrace.isa import Command
from headrace.isa.layout import command_layout

__all__ = ["AHEAD", "fork", "hold", "join", "meta_layout", "view_fields"]

AHEAD = 16
"""Beats a source may be ahead; more than the latency of its streams."""


def view_fields(command: data.View, prefix: str) -> dict[str, Value]:
    """Fields of `View` from those of a command."""
    names = {"base": f"{prefix}_base", "plane": f"{prefix}_plane", "shift": f"{prefix}_shift"}
    return {**{k: command[v] for k, v in names.items()}, "type": command[f"{prefix}_type"]}


def hold(m: Module, issue: Any, command: Command, ends: Value) -> tuple[Signal, Any, Signal, Signal]:
    """Take commands from the stream `issue`, the next one in the cycle in which the current one `ends`.

    Returns (a command is held, its fields, its index, a command is being taken).
    """
    fields, index = Signal(command_layout(command), name="command"), Signal(16, name="command_index")
    active, load = Signal(name="active"), Signal(name="load")
    m.d.comb += [issue.ready.eq(~active | ends), load.eq(issue.valid & issue.ready)]
    with m.If(issue.ready):
        m.d.sync += active.eq(issue.valid)
    with m.If(load):
        m.d.sync += [fields.eq(issue.payload.cmd), index.eq(issue.payload.index)]
    return active, fields, index, load


def fork(m: Module, valid: Value, branches: Sequence[tuple[Value, Value, Value]]) -> Signal:
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


def meta_layout(*, lanes: int, contexts: int) -> data.StructLayout:
    """A beat's description, which waits for its operands."""
    return data.StructLayout(
        {
            "idx": IDX_BITS,
            "lanes": Shape.cast(range(lanes + 1)),
            "last": 1,
            "ends": 1,
            "boundary": 1,
            "context": index_bits(contexts),
            "wraps": 4,
            "index": 16,
            "use_y": 1,
        }
    )


def join(m: Module, o: wiring.PureInterface, meta: SyncFIFO, layout: data.StructLayout, x: Value, y: Value) -> None:
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
