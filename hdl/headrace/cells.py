"""Blocks that occur many times are written to Verilog once.

Amaranth turns every instance of a component into a module of its own: an array of 1,024 identical processing elements
becomes 1,024 modules, which no tool downstream thanks us for. A *cell* is a component which is added through
`add_cell`. In simulation by Amaranth it is an ordinary submodule. In Verilog emission, where a `CellLibrary` is passed
as the platform, it becomes an `Instance` of a module which the library emits once for each distinct set of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any, Protocol, cast

from amaranth import ClockDomain, ClockSignal, Elaboratable, Fragment, Instance, Module, ResetSignal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

Ports = dict[str, tuple[Value, None]]


class Cell(Protocol):
    """A `wiring.Component` which may be emitted once and instantiated many times.

    It uses the `sync` domain only, its signature names all of its ports, and two objects of the same class with equal
    `cell_key` elaborate to the same logic.
    """

    @property
    def cell_key(self) -> Hashable: ...


def flat_ports(component: wiring.Component) -> Ports:
    """Port name to value for every port of `component`; the path of a port is joined with underscores."""
    return {
        "_".join(map(str, path)): (Value.cast(value), None) for path, _, value in component.signature.flatten(component)
    }


class CellModule(Elaboratable):
    """The top of an emitted module: clock and reset are ports even when the component has no register."""

    def __init__(self, component: wiring.Component) -> None:
        self._component = component
        self._domain = ClockDomain("sync")

    @property
    def ports(self) -> Ports:
        domain = {"clk": (cast(Value, self._domain.clk), None), "rst": (cast(Value, self._domain.rst), None)}
        return {**domain, **flat_ports(self._component)}

    def elaborate(self, platform: object) -> Fragment:
        fragment = Fragment.get(self._component, platform)
        fragment.add_domains(self._domain)
        return fragment


class CellLibrary:
    """The distinct cells of one design. Pass it as the Amaranth platform of an emission.

    Module names are `<prefix>_<class name in snake case>`, followed by a number from the second set of parameters on.
    They depend only on the order in which cells are met, which elaboration fixes.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._cells: dict[tuple[type, Hashable], tuple[str, wiring.Component]] = {}
        self._count: dict[str, int] = {}

    def module_name(self, component: wiring.Component) -> str:
        """Name of the module that implements `component`, which is registered if it is the first of its kind."""
        key = (type(component), cast(Cell, component).cell_key)
        if key not in self._cells:
            self._cells[key] = (self._new_name(type(component).__name__), component)
        return self._cells[key][0]

    def _new_name(self, class_name: str) -> str:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()
        index = self._count.get(snake, 0)
        self._count[snake] = index + 1
        return f"{self._prefix}_{snake}" + (f"_{index}" if index else "")

    def modules(self) -> Iterator[tuple[str, wiring.Component]]:
        """Every registered cell with its module name. Cells registered during the iteration are visited too."""
        done = 0
        while done < len(self._cells):
            yield list(self._cells.values())[done]
            done += 1

    def instance(self, component: wiring.Component) -> Instance:
        """An `Instance` of the module of `component`, connected to the port signals of this very object."""
        ports: dict[str, Any] = {"i_clk": ClockSignal("sync"), "i_rst": ResetSignal("sync")}
        for path, member, value in component.signature.flatten(component):
            direction = "i" if member.flow is In else "o"
            ports[f"{direction}_{'_'.join(map(str, path))}"] = Value.cast(value)
        instance = Instance(self.module_name(component), **ports)
        # Only the first object of a kind is elaborated; Amaranth would warn about all the others.
        cast(Any, component)._MustUse__used = True
        return instance


def add_cell(m: Module, name: str, component: wiring.Component, platform: object) -> None:
    """Add `component` to `m` as submodule `name`, an instance of a shared module if `platform` is a `CellLibrary`."""
    m.submodules[name] = platform.instance(component) if isinstance(platform, CellLibrary) else component
