"""What an operator over rows consists of: passes, what their beats step through, and records in between.

A row is `elements` elements of one pixel; a group is 32 of them. Between passes a value of a row, or of a group, is a
record of L equal lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from headrace.isa import DType
from headrace_host.compiler.constants import Vectors
from headrace_host.compiler.programs import Step


class Unit(Enum):
    """What a beat of a pass, or of a stream, steps through."""

    element = "element"  # L elements of a row
    group = "group"  # L elements of a group; groups are a loop of their own
    each = "each"  # one value a group
    values = "values"  # L values of groups, which lie beside each other
    word = "word"  # one value a word of a group
    row = "row"  # one value a row


@dataclass(frozen=True)
class Place:
    """A stream of a pass: a tensor or record by ``name``, what its beats step through, its elements' type."""

    name: str
    unit: Unit
    kind: DType | None = None


@dataclass(frozen=True)
class RowPass:
    """One VECTOR command: its beats step through ``unit``; ``steps`` may contain a reduction to ``out.unit``.

    ``vector`` names an input whose element is operand MEM of the ``indexed`` step, ``constants`` are vectors by name.
    """

    unit: Unit
    steps: tuple[Step, ...]
    x: Place
    out: Place
    y: Place | None = None
    vector: str | None = None
    constants: Vectors = field(default_factory=dict)

    @property
    def reduces(self) -> bool:
        """Whether the beats of the innermost loop give one."""
        return any(step.reduce for step in self.steps)


@dataclass(frozen=True)
class RowKernel:
    """Passes in order; ``records`` are temporaries by name: (unit, type, other), units element, each, values or row.

    The two streams of a pass are read fastest from different sub-banks: those with ``other`` lie in the other one than
    the first input.
    """

    name: str
    passes: tuple[RowPass, ...]
    records: Mapping[str, tuple[Unit, DType, bool]]
    results: tuple[str, ...]
