"""Residency of dataflow programs and per-channel vectors in the machine's small memories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace.isa import CONTEXT_WORDS, Dest
from headrace_host.allocate import DdrAllocator
from headrace_host.compiler.packing import channel_words, pack_channels, pack_offset_shifts
from headrace_host.compiler.programs import Program
from headrace_host.compiler.stream import Access, Recorder, Space
from headrace_host.errors import CompileError

Vectors = dict[str, NDArray[np.int32 | np.float32]]


@dataclass
class DdrImage:
    """Constant data placed in DDR at compile time."""

    allocator: DdrAllocator
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    _named: dict[str, int] = field(default_factory=dict)

    def placed(self, name: str, content: Callable[[], bytes]) -> int:
        """Address of the content of this ``name``, which is made and placed at the first call."""
        if name not in self._named:
            self._named[name] = self.place(content(), name)
        return self._named[name]

    def place(self, content: bytes, what: str) -> int:
        """Put ``content`` into DDR and return its address."""
        address = self.allocator.allocate(len(content), what)
        self.segments.append((address, content))
        return address


@dataclass(frozen=True)
class Installed:
    """A program with its vectors on the machine: the command fields and accesses of the passes that use it."""

    ctx: int
    wraps: int
    idx_base: int
    accesses: tuple[Access, ...]


class ConstantStore:
    """Allocates contexts and column memory words in rotation and emits the LOAD commands that fill them.

    A program or table already present is used again; what rotation or a vector overwrites is forgotten. Tokens order a
    LOAD after the last pass that read what it overwrites.
    """

    def __init__(self, config: NpuConfig, recorder: Recorder, image: DdrImage) -> None:
        self._config, self._recorder, self._image = config, recorder, image
        self._resident: dict[tuple[tuple[int, ...], ...], int] = {}
        self._tables: dict[int, bytes] = {}
        self._next_context = 0
        self._next_word = 0
        self._next_shift = 0

    def install(self, program: Program, vectors: Vectors, label: int, *, layers: int = 1) -> Installed:
        """Make ``program`` and its per-channel ``vectors`` (all of one length) present; ``label`` names the layer.

        Contexts and tables may be loaded beside the ``layers`` before.
        """
        ctx = self._resident.get(program.contexts)
        if ctx is None:
            ctx = self._load_contexts(program, label, layers)
        count = len(program.contexts)
        accesses = [Access(Space.CONTEXT, ((ctx, ctx + count),), False)]
        idx_base = 0
        if vectors:
            idx_base, spans = self._load_vectors(program, vectors, label)
            accesses.append(Access(Space.COLUMN, spans, False))
        for column, table in program.tables.items():
            accesses.append(self._load_table(column, table, label, layers))
        return Installed(ctx, program.wraps, idx_base, tuple(accesses))

    def overwrite(self, *columns: int) -> None:
        """Something else is loaded to the memories of ``columns``: tables there are forgotten."""
        for column in columns:
            self._tables.pop(column, None)

    def install_shifts(self, shifts: NDArray[np.uint8], label: int) -> tuple[int, tuple[Access, ...]]:
        """Load the group offset shifts of a layer's channels; return their first word and what reading them touches."""
        config = self._config
        words, elements = -(-len(shifts) // config.cols), -(-config.cols // 8)
        if words > config.kc_words:
            raise CompileError(
                f"{len(shifts)} channels need {words} words of group offset shifts, machine '{config.name}' has "
                f"{config.kc_words}; raise kc_words"
            )
        base = self._next_shift if self._next_shift + words <= config.kc_words else 0
        self._next_shift = base + words
        content = pack_offset_shifts(config, shifts)
        self._recorder.emit_early(
            "LOAD",
            label,
            (Access(Space.SHIFT, ((base, base + words),), True),),
            dest=Dest.KC,
            ddr=self._image.place(content, "group offset shifts"),
            n0=len(content),
            pix_bytes=4,
            element=base * elements,
        )
        return base, (Access(Space.SHIFT, ((base, base + words),), False),)

    def _load_table(self, column: int, table: NDArray[np.int32], label: int, layers: int) -> Access:
        """Load ``table`` into a column's memory, lane 0 or all lanes; return what reading it touches."""
        first, lanes = column * self._config.column_words, self._config.vector_lanes
        content, span = table.tobytes(), ((first, first + len(table)),)
        if self._tables.get(column) == content:
            return Access(Space.COLUMN, span, False)
        self._tables[column] = content
        walk = {"n0": len(content)} if table.ndim == 2 else {"n0": 4, "n1": len(table), "s1": 4, "d1": lanes}
        self._recorder.emit_early(
            "LOAD",
            label,
            (Access(Space.COLUMN, span, True),),
            layers=layers,
            dest=Dest.COLUMN,
            ddr=self._image.place(content, "table"),
            **walk,
            pix_bytes=4,
            element=first * lanes,
        )
        return Access(Space.COLUMN, span, False)

    def _load_contexts(self, program: Program, label: int, layers: int) -> int:
        count = len(program.contexts)
        first = self._next_context if self._next_context + count <= self._config.contexts else 0
        self._next_context = first + count
        for key, start in list(self._resident.items()):
            if start < first + count and first < start + len(key):
                del self._resident[key]
        self._resident[program.contexts] = first
        content = np.array(program.contexts, np.uint32).tobytes()
        self._recorder.emit_early(
            "LOAD",
            label,
            (Access(Space.CONTEXT, ((first, first + count),), True),),
            layers=layers,
            dest=Dest.CONTEXT,
            ddr=self._image.place(content, "dataflow contexts"),
            n0=len(content),
            pix_bytes=4,
            element=first * self._config.columns * CONTEXT_WORDS,
        )
        return first

    def _load_vectors(self, program: Program, vectors: Vectors, label: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Load each vector into its column's area, all at the same offset; return the offset and what is occupied."""
        length = len(next(iter(vectors.values())))
        words = channel_words(self._config, length)
        if words > program.area_words:
            raise CompileError(
                f"{length} channels need {words} words of column memory, machine '{self._config.name}' has "
                f"{program.area_words}; raise column_words"
            )
        offset = self._next_word if self._next_word + words <= program.area_words else 0
        self._next_word = offset + words
        spans = []
        places = []
        for name, vector in vectors.items():
            column, area = program.vectors[name]
            self._tables.pop(column, None)
            word = column * self._config.column_words + area + offset
            spans.append((word, word + words))
            places.append((word * self._config.vector_lanes, pack_channels(self._config, vector)))
        places.sort(key=lambda place: place[0])
        distances = {after[0] - before[0] for before, after in pairwise(places)}
        batches = [places] if len(distances) <= 1 else [[place] for place in places]
        for batch in batches:
            self._recorder.emit_early(
                "LOAD",
                label,
                (Access(Space.COLUMN, tuple(spans), True),),
                dest=Dest.COLUMN,
                ddr=self._image.place(b"".join(packed for _, packed in batch), "per-channel constants"),
                n0=len(batch[0][1]),
                n1=len(batch),
                s1=len(batch[0][1]),
                d1=batch[1][0] - batch[0][0] if len(batch) > 1 else 0,
                pix_bytes=4,
                element=batch[0][0],
            )
        return offset, tuple(spans)
