"""Verilog of a design as one deterministic text."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.back import verilog
from amaranth.lib import wiring

from headrace.cells import CellLibrary, CellModule
from headrace.clocked import merge_registers


def emit(component: wiring.Component, name: str, *, library: CellLibrary | None = None) -> str:
    """Verilog of `component` as module `name`, followed by every cell it uses, each one once.

    Ports are `clk`, `rst` and the flattened signature (`m_axi.awaddr` becomes `m_axi_awaddr`). Equal designs give equal
    text. `library` may be passed to inspect the cells afterwards; it must be new.
    """
    library = CellLibrary(name) if library is None else library
    with _rare_collection():
        texts = [_module(component, name, library)]
        texts.extend(_module(cell, cell_name, library) for cell_name, cell in library.modules())
    return "\n".join(texts)


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Garbage is collected rarely: a netlist is millions of objects that live until it is written."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _module(component: wiring.Component, name: str, library: CellLibrary) -> str:
    top = CellModule(component)
    text: str = verilog.convert(
        top, name=name, platform=library, ports=top.ports, emit_src=False, strip_internal_attrs=True
    )
    return merge_registers(text)
