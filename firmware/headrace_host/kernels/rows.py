"""Passes over rows of tensors in the scratchpad: operators of several VECTOR commands, with records in between.

Rows are the turns of one or two loops. Row lengths may be known only when the commands start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.isa import DataflowOp, Dest, DType
from headrace.isa.assembler import patch
from headrace_host.compiler.layout import ELEMENT_BYTES, View
from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.stream import Access, Space
from headrace_host.compiler.vector_pass import INT8, Codes, Stream, emit_pass
from headrace_host.errors import CompileError
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.row_kernels import row_kernel
from headrace_host.kernels.row_passes import Place, RowKernel, RowPass, Unit
from headrace_host.kernels.trace import Kernel

VECTOR_COLUMN = 5
"""Column in which a pass uses a `Vector`: one operation may come before those that follow it, two after."""


@dataclass(frozen=True, kw_only=True)
class RowTensor:
    """Rows in the scratchpad: of ``kind``, the first at ``pixel`` and channel byte ``channel`` of ``view``; ``steps``
    are (pixels, channel bytes) from turn to turn of each row loop, the outer one first."""

    view: View
    kind: DType
    steps: tuple[tuple[int, int], ...]
    pixel: int = 0
    channel: int = 0


@dataclass(frozen=True, kw_only=True)
class DynamicRow:
    """Scalar registers that hold counts of a row, less one: beats, groups of 32, beats of one value a group. Rows are
    whole groups. ``vector_bytes``: bytes of a row of fp32, less 4."""

    beats: int
    groups: int
    group_beats: int
    vector_bytes: int


@dataclass(frozen=True)
class Vector:
    """An operand of one fp32 value an element, the same for all rows, at DDR ``address``; ``access`` is what reading it
    touches. It lies in the memory of column `VECTOR_COLUMN` during a pass."""

    address: int
    access: Access


def emit_rows(
    image: KernelImage,
    kernel: Kernel | RowKernel,
    inputs: Mapping[str, RowTensor | Vector],
    results: Sequence[RowTensor],
    rows: tuple[int, ...],
    elements: int,
    dynamic: DynamicRow | None = None,
) -> None:
    """Emit ``kernel`` over ``rows``, the turns of the row loops, of ``elements`` elements (at most, if ``dynamic``)."""
    placed = kernel if isinstance(kernel, RowKernel) else row_kernel(kernel, image.config)
    _Emission(image, placed, dict(inputs), list(results), rows, elements, dynamic).emit()


class _Emission:
    def __init__(
        self,
        image: KernelImage,
        kernel: RowKernel,
        inputs: dict[str, RowTensor | Vector],
        results: list[RowTensor],
        rows: tuple[int, ...],
        elements: int,
        dynamic: DynamicRow | None,
    ) -> None:
        self._image, self._kernel, self._config = image, kernel, image.config
        self._rows, self._elements, self._dynamic = rows, elements, dynamic
        self._tensors: dict[str, RowTensor] = {n: t for n, t in inputs.items() if isinstance(t, RowTensor)}
        self._tensors |= dict(zip(kernel.results, results, strict=True))
        self._vectors = {n: v for n, v in inputs.items() if isinstance(v, Vector)}
        lanes = self._config.vector_lanes
        self._groups = -(-elements // GROUP_CODES)
        grouped = any(p.unit not in (Unit.element, Unit.row) for p in kernel.passes)
        self._beats_are_whole = GROUP_CODES % lanes == 0
        """Whether the beats of groups hold nothing else, so that those of a row follow each other evenly."""
        if grouped and elements % GROUP_CODES:
            raise CompileError(f"kernel '{kernel.name}': rows of {elements} elements are not groups of {GROUP_CODES}")
        if grouped and GROUP_CODES % self._config.word_bytes:
            raise CompileError(
                f"kernel '{kernel.name}': a word of machine '{self._config.name}' is larger than a group of "
                f"{GROUP_CODES}"
            )

    def emit(self) -> None:
        count = 1
        for turns in self._rows:
            count *= turns
        outer = self._rows[1] if len(self._rows) == 2 else 0
        steps = ((outer, 0), (1, 0)) if outer else ((1, 0),)
        first = next(iter(self._tensors.values())).view
        near = first.base // (self._config.bank_words // 2)
        for name, (unit, kind, other) in self._kernel.records.items():
            size, bank = self._record_bytes(unit, kind), 1 - near if other else near
            view = self._image.memory.scratch(self._kernel.name, count, size, prefer=bank)
            self._tensors[name] = RowTensor(view=view, kind=kind, steps=steps)
        for each in self._kernel.passes:
            self._emit_pass(each)
        self._image.memory.release_buffers()

    def _record_bytes(self, unit: Unit, kind: DType) -> int:
        lanes, size = self._config.vector_lanes, ELEMENT_BYTES[kind]
        return (
            size
            * {
                Unit.element: self._elements,
                Unit.each: self._groups * lanes,
                Unit.values: self._groups + lanes - 1,
                Unit.row: lanes,
            }[unit]
        )

    def _emit_pass(self, each: RowPass) -> None:
        memory, config = self._image.memory, self._config
        steps = _aligned(each.steps)
        program = place(config, steps)
        installed = self._image.constants.install(program, each.constants, memory.label)
        if installed.wraps:
            raise CompileError(
                f"kernel '{self._kernel.name}': a pass needs {len(steps)} columns, machine "
                f"'{config.name}' has {config.columns}; raise columns"
            )
        reads = () if each.vector is None else self._load_vector(self._vectors[each.vector])
        counts = self._counts(each.unit)
        inner = len(counts)
        loops = {f"n{i}": n for i, n in enumerate((*counts, *reversed(self._rows)))}
        if each.unit is Unit.group:
            loops |= {"idx_step": counts[0]}
        loops |= {"idx_base": installed.idx_base, "idx_loop": 3 if each.unit in (Unit.each, Unit.word) else 0}
        streams = {"x": self._stream(each.x, each, "x", inner, loops)}
        if each.y is not None:
            streams["y"] = self._stream(each.y, each, "y", inner, loops)
        out = self._stream(each.out, each, "o", inner, loops)
        channels = 1 if each.unit in (Unit.each, Unit.word) else 0
        if each.unit is Unit.element and self._elements % config.vector_lanes:
            channels = self._elements
        if each.unit is Unit.group and not self._beats_are_whole:
            channels = GROUP_CODES
        loops |= self._patches(each)
        codes = Codes(0, 0, -1) if out.kind is DType.U8 else INT8
        emit_pass(
            memory, installed, loops, streams["x"], out, y=streams.get("y"), codes=codes, channels=channels, reads=reads
        )

    def _counts(self, unit: Unit) -> tuple[int, ...]:
        """Turns of the loops inside the row loops, the innermost first."""
        lanes, word = self._config.vector_lanes, self._config.word_bytes
        return {
            Unit.element: (-(-self._elements // lanes),),
            Unit.group: (-(-GROUP_CODES // lanes), self._groups),
            Unit.each: (self._groups,),
            Unit.values: (-(-self._groups // lanes),),
            Unit.word: (GROUP_CODES // word, self._groups),
            Unit.row: (1,),
        }[unit]

    def _stream(self, at: Place, each: RowPass, prefix: str, inner: int, loops: dict[str, int]) -> Stream:
        """The stream of ``at``, whose steps are added to ``loops``."""
        tensor = self._tensors[at.name]
        kind = at.kind or tensor.kind
        size, lanes = ELEMENT_BYTES[kind], self._config.vector_lanes
        group = GROUP_CODES * size
        record = size * lanes
        steps: tuple[int, ...] = {
            (Unit.element, Unit.element): (record,),
            (Unit.element, Unit.row): (0,),
            (Unit.group, Unit.element): (record, group),
            (Unit.group, Unit.each): (0, record),
            (Unit.group, Unit.values): (0, size),
            (Unit.group, Unit.row): (0, 0),
            (Unit.each, Unit.each): (record,),
            (Unit.each, Unit.values): (size,),
            (Unit.each, Unit.row): (0,),
            (Unit.values, Unit.values): (record,),
            (Unit.values, Unit.row): (0,),
            (Unit.word, Unit.word): (self._config.word_bytes, group),
            (Unit.word, Unit.each): (0, record),
            (Unit.word, Unit.row): (0, 0),
            (Unit.row, Unit.row): (0,),
        }[each.unit, at.unit]
        if at.name in self._kernel.records and kind is not tensor.kind:
            assert ELEMENT_BYTES[kind] == ELEMENT_BYTES[tensor.kind]
        field = "m" if prefix == "o" else "n"
        if prefix == "o":
            counts = list(zip(self._counts(each.unit), steps))
            if each.reduces and each.unit is not Unit.each:
                counts = counts[1:]
            elif each.unit is Unit.group and self._beats_are_whole:
                counts = [(counts[0][0] * counts[1][0], counts[0][1])]
            places = counts
        else:
            places = list(zip(self._counts(each.unit), steps))
        position = 0
        for turns, step in places:
            loops |= {f"{field}{position}": turns, f"{prefix}_dc{position}": step}
            position += 1
        for turns, (pixel, channel) in zip(reversed(self._rows), reversed(tensor.steps)):
            loops |= {f"{field}{position}": turns, f"{prefix}_dp{position}": pixel, f"{prefix}_dc{position}": channel}
            position += 1
        if position > (3 if prefix == "o" else 4):
            raise CompileError(f"kernel '{self._kernel.name}': too many loops for one command")
        pixels = 1 + sum((turns - 1) * step[0] for turns, step in zip(self._rows, tensor.steps))
        width = sum((turns - 1) * step[1] for turns, step in zip(self._rows, tensor.steps))
        extent = {
            Unit.element: self._elements * size,
            Unit.each: self._groups * record,
            Unit.values: (self._groups + lanes - 1) * size,
            Unit.word: self._elements,
            Unit.row: record,
        }[at.unit]
        return Stream(tensor.view, tensor.pixel, pixels, tensor.channel, width + extent, kind)

    def _load_vector(self, vector: Vector) -> tuple[Access, ...]:
        """LOAD it to its column; what reading it touches."""
        memory = self._image.memory
        words = -(-self._elements // self._config.vector_lanes)
        first = VECTOR_COLUMN * self._config.column_words
        span = ((first, first + words),)
        self._image.constants.overwrite(VECTOR_COLUMN)
        length = {"n0": 4 * self._elements}
        if self._dynamic is not None:
            length = {"n0": 4, "patch0": patch("LOAD", "n0", register=self._dynamic.vector_bytes)}
        memory.recorder.emit(
            "LOAD",
            memory.label,
            (Access(Space.COLUMN, span, True), vector.access),
            dest=Dest.COLUMN,
            ddr=vector.address,
            element=first * self._config.vector_lanes,
            **length,
            pix_bytes=4,
        )
        return (Access(Space.COLUMN, span, False),)

    def _patches(self, each: RowPass) -> dict[str, int]:
        """Dynamic counts; the static ones are then 1."""
        dynamic = self._dynamic
        if dynamic is None or each.unit is Unit.row:
            return {}
        register = {
            Unit.element: dynamic.beats,
            Unit.group: dynamic.groups,
            Unit.each: dynamic.groups,
            Unit.values: dynamic.group_beats,
            Unit.word: dynamic.groups,
        }[each.unit]
        source = "n1" if each.unit in (Unit.group, Unit.word) else "n0"
        found = {source: 1, "patch0": patch("VECTOR", source, register=register)}
        if each.unit is Unit.group and not each.reduces:
            if not self._beats_are_whole:
                return found | {"m1": 1, "patch1": patch("VECTOR", "m1", register=register)}
            return found | {"m0": 1, "patch1": patch("VECTOR", "m0", register=dynamic.beats)}
        if each.unit is Unit.word:
            return found | {"m1": 1, "patch1": patch("VECTOR", "m1", register=register)}
        if each.unit in (Unit.group, Unit.each) or not each.reduces:
            return found | {"m0": 1, "patch1": patch("VECTOR", "m0", register=register)}
        return found


def _aligned(steps: Sequence[Step]) -> list[Step]:
    """Steps with the one that uses a `Vector` in the column of the vector."""
    indexed = [position for position, step in enumerate(steps) if step.indexed]
    return [*[Step(op=DataflowOp.PASS)] * (VECTOR_COLUMN - indexed[0] if indexed else 0), *steps]
