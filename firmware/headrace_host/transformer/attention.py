"""Attention of one layer against its cache: scores, softmax and mixing, one key head with its query heads at a time.

Rows are (token, query head of the group). Of the groups, one multiplies while the one before goes through softmax:
scores 0; then for each group g: scores g + 1, softmax g, mixing g.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.config import Precision
from headrace.isa import DataflowOp, Dest, DType, Source
from headrace.isa.assembler import patch
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.stream import Access, Space
from headrace_host.compiler.tiling import cut_tiles
from headrace_host.compiler.vector_pass import Stream, emit_pass
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.linear import UNIT_FACTOR, row_geometry, tile_fields
from headrace_host.kernels.row_passes import RowKernel
from headrace_host.kernels.rows import DynamicRow, RowTensor, Vector, emit_rows
from headrace_host.kernels.trace import Kernel
from headrace_host.kernels.transformer import copy, mixing_scale, quantise_probabilities, quantise_rows, softmax_rows
from headrace_host.transformer.cache import Cache
from headrace_host.transformer.positions import Register
from headrace_host.transformer.rotary import Turn
from headrace_host.transformer.tensors import OPERANDS, VECTORS, Arena, Tensor

DYNAMIC = DynamicRow(
    beats=Register.BEATS,
    groups=Register.GROUPS,
    group_beats=Register.GROUP_BEATS,
    vector_bytes=Register.VECTOR_BYTES,
)
"""Registers of a row over all keys seen so far, padded to groups of 32."""
FAR_BELOW = 0xC6
"""Byte of scores of keys that do not exist: bf16 0xC6C6 is -25,443, of which exp is 0."""
_ADD = Step(op=DataflowOp.FADD, b=Source.Y)


SCORE_BYTES = 18 << 10
"""Scores of a part of the rows: two parts, and what goes with them, fit beside the queries."""
KEY_SCALES = 2
"""Column whose memory holds the scales of a head's keys."""
AHEAD = 3
"""Parts whose keys and values may be sent to the ring all at once: six commands in a queue of eight."""


@dataclass(frozen=True)
class _Part:
    """Rows that go through attention together: the query heads of key ``head``, for ``tokens``."""

    head: int
    tokens: range


@dataclass
class _Group:
    """Buffers of a part: scores and probabilities, codes and scales of queries."""

    scores: Tensor
    query_codes: Tensor
    query_scales: Tensor


class Attention:
    """Emits the commands for ``tokens`` tokens; ``shared`` query heads use one key head."""

    def __init__(
        self,
        image: KernelImage,
        arena: Arena,
        cache: Cache,
        turn: Turn,
        *,
        tokens: int,
        shared: int,
        bias: Tensor | None,
    ) -> None:
        """``bias``: for several tokens, what is added to the scores of this run's keys, pixel token: 0 or far below."""
        self._image, self._arena, self._cache, self._turn = image, arena, cache, turn
        self._config, self._tokens, self._shared, self._bias = image.config, tokens, shared, bias
        self._keys = cache.shape.tokens
        count = tokens
        while count > 1 and count % 2 == 0 and count * shared * self._keys * 2 > SCORE_BYTES:
            count //= 2
        starts = range(0, tokens, count)
        self._parts = [_Part(head, range(t, t + count)) for head in range(cache.shape.heads) for t in starts]
        self._rows = count * shared
        self.streams_ahead = len(self._parts) <= AHEAD
        """Whether `stream` sends everything; otherwise `mix` does."""

    def append_keys(self, keys: Tensor) -> None:
        """Turn and quantise the ``keys`` (bf16, pixel token) and append them to the cache."""
        tokens, heads, width = self._tokens, self._cache.shape.heads, self._cache.shape.width
        turned = self._arena.new("turned keys", tokens * heads, width, DType.BF16, bank=VECTORS)
        self._turn.load()
        self._turn.emit(keys, range(heads), range(tokens), turned)
        by_head = RowTensor(view=turned.view, kind=DType.BF16, steps=((heads, 0), (1, 0)))
        codes, scales = self._quantised("key", by_head, (tokens, heads), by_token=False)
        self._cache.append_keys(codes.view, tokens)
        self._cache.append_scales(self._cache.key_scales, scales.view, tokens)
        self._arena.free(turned, codes, scales)

    def append_values(self, values: Tensor) -> None:
        """Quantise the ``values`` (bf16, pixel token) and append them to the cache."""
        tokens, heads, width = self._tokens, self._cache.shape.heads, self._cache.shape.width
        plain = RowTensor(view=values.view, kind=DType.BF16, steps=((1, 0), (0, 2 * width)))
        codes, scales = self._quantised("value", plain, (tokens, heads), by_token=False)
        self._cache.append_values(codes.view, tokens)
        self._cache.append_scales(self._cache.value_scales, scales.view, tokens)
        self._arena.free(codes, scales)

    def _quantised(
        self, what: str, source: RowTensor, rows: tuple[int, int], *, by_token: bool
    ) -> tuple[Tensor, Tensor]:
        """Codes and scales of (token, head) rows; pixel token * heads + head, or head * tokens + token."""
        (tokens, heads), width = rows, self._cache.shape.width
        bank = OPERANDS if by_token else VECTORS
        codes = self._arena.new(f"{what} codes", tokens * heads, width, DType.I8, bank=bank)
        scales = self._arena.record(f"{what} scales", tokens * heads)
        steps = ((heads, 0), (1, 0)) if by_token else ((1, 0), (tokens, 0))
        results = [RowTensor(view=t.view, kind=t.kind, steps=steps) for t in (scales, codes)]
        self._rows_kernel(quantise_rows, {"x": source}, results, (tokens, heads), width)
        return codes, scales

    def stream(self) -> None:
        """Send keys and values of all parts to the ring, in the order in which `mix` multiplies, if `streams_ahead`."""
        if self.streams_ahead:
            self._cache.stream_keys(self._parts[0].head, _KEY_TAG)
            for number in range(len(self._parts)):
                self._stream_keys_after(number)
                self._cache.stream_values(self._parts[number].head, _VALUE_TAG)

    def _stream_keys_after(self, number: int) -> None:
        if number + 1 < len(self._parts):
            self._cache.stream_keys(self._parts[number + 1].head, _KEY_TAG)

    def mix(self, queries: Tensor, project: Callable[[int], None]) -> None:
        """Replace ``queries`` (bf16, pixel token, all heads) by what attention makes of them.

        ``project`` emits the product that makes the queries of a key head; it is called for each, those of the head
        after the next before the scores of the next.
        """
        if not self.streams_ahead:
            self._cache.stream_keys(self._parts[0].head, _KEY_TAG)
        heads = self._cache.shape.heads
        for head in range(min(2, heads)):
            project(head)
        following = self._scores(queries, self._parts[0])
        waiting: tuple[Tensor, _Part] | None = None  # mixed values: copied when the next queries are quantised
        for number, part in enumerate(self._parts):
            group = following
            if part.tokens.start == 0 and part.head + 2 < heads:
                project(part.head + 2)
            if not self.streams_ahead:
                self._stream_keys_after(number)
            if number + 1 < len(self._parts):
                following = self._scores(queries, self._parts[number + 1])
            if not self.streams_ahead:
                self._cache.stream_values(part.head, _VALUE_TAG)
            if waiting is not None:
                self._place(*waiting, queries)
            waiting = (self._softmax_and_mix(group, part), part)
        assert waiting is not None
        self._place(*waiting, queries)

    def _scores(self, queries: Tensor, part: _Part) -> _Group:
        """bf16 scores of a part's rows with all keys."""
        arena, rows, shared, width = self._arena, self._rows, self._shared, self._cache.shape.width
        turned = arena.new("turned queries", rows, width, DType.BF16, bank=VECTORS)
        self._turn.load()
        self._turn.emit(queries, range(part.head * shared, (part.head + 1) * shared), part.tokens, turned)
        source = RowTensor(view=turned.view, kind=DType.BF16, steps=((shared, 0), (1, 0)))
        codes, scales = self._quantised("query", source, (len(part.tokens), shared), by_token=True)
        arena.free(turned)
        scores = arena.new("scores", rows, self._keys, DType.BF16, bank=VECTORS)
        self._fill(scores)
        self._multiply_keys(codes, scales, scores, part.head)
        return _Group(scores, codes, scales)

    def _fill(self, scores: Tensor) -> None:
        """The last group of 32 keys, of which some may not exist."""
        memory, span = self._image.memory, 64
        memory.recorder.emit(
            "LOAD",
            memory.label,
            (scores.view.access(self._config, write=True),),
            fill=1,
            fill_value=FAR_BELOW,
            n0=span * self._rows,
            pix_bytes=span,
            **scores.view.fields(""),
            patch0=patch("LOAD", "c0", register=Register.GROUPS, shift=6),
        )

    def _multiply_keys(self, codes: Tensor, scales: Tensor, scores: Tensor, head: int) -> None:
        config, memory, rows, shape = self._config, self._image.memory, self._rows, self._cache.shape
        program = place(config, _score_steps(np.float32(shape.width**-0.5)))
        installed = self._image.constants.install(program, {}, memory.label)
        words = shape.tokens // config.vector_lanes
        first = KEY_SCALES * config.column_words
        span = ((first, first + words),)
        self._image.constants.overwrite(KEY_SCALES)
        part = self._cache.key_scales
        memory.recorder.emit(
            "LOAD",
            memory.label,
            (Access(Space.COLUMN, span, True), self._cache.access(part, write=False)),
            dest=Dest.COLUMN,
            element=first * config.vector_lanes,
            ddr=part + 4 * head * shape.tokens,
            n0=4,
            pix_bytes=4,
            patch0=patch("LOAD", "n0", register=Register.VECTOR_BYTES),
        )
        common = tile_fields(cut_tiles(config, rows, 0, config.accs), 1, rows)
        memory.recorder.emit(
            "MAC",
            memory.label,
            (codes.view.access(config, write=False),),
            **codes.view.fields("in"),
            **common,
            mode=int(Precision.A8W8),
            replay=1,
            **row_geometry(rows, shape.words),
            tag=_KEY_TAG,
            patch0=patch("MAC", "n_tiles", register=Register.KEY_TILES),
        )
        memory.recorder.emit(
            "EPILOGUE",
            memory.label,
            (
                *installed.accesses,
                Access(Space.COLUMN, span, False),
                scales.view.access(config, write=False),
                scores.view.access(config, write=True),
            ),
            **scores.view.fields("out"),
            out_type=int(DType.BF16),
            **scales.view.fields("res"),
            res_type=int(DType.B32),
            res_enable=1,
            res_row=1,
            **common,
            ctx=installed.ctx,
            wraps=installed.wraps,
            patch0=patch("EPILOGUE", "n_tiles", register=Register.KEY_TILES),
            patch1=patch("EPILOGUE", "channels", register=Register.KEYS),
        )

    def _softmax_and_mix(self, group: _Group, at: _Part) -> Tensor:
        arena, rows, shape, head = self._arena, self._rows, self._cache.shape, at.head
        if self._bias is not None:
            self._mask(group.scores, self._bias, at.tokens)
        scores = RowTensor(view=group.scores.view, kind=DType.BF16, steps=((1, 0),))
        sums = arena.record("reciprocal sums", rows)
        record = RowTensor(view=sums.view, kind=DType.B32, steps=((1, 0),))
        self._rows_kernel(softmax_rows, {"x": scores}, [scores, record], (rows,), self._keys, DYNAMIC)
        codes = arena.new("probability codes", rows, self._keys, DType.I8, bank=OPERANDS)
        scales = arena.record("probability scales", rows)
        steps = ((1, 0),)
        results = [
            RowTensor(view=codes.view, kind=DType.I8, steps=steps),
            RowTensor(view=codes.view, kind=DType.KA, steps=steps),
            RowTensor(view=scales.view, kind=DType.B32, steps=steps),
        ]
        part = self._cache.value_scales
        vector = Vector(part + 4 * head * shape.tokens, self._cache.access(part, write=False))
        inputs: dict[str, RowTensor | Vector] = {"p": scores, "unit": vector}
        self._rows_kernel(quantise_probabilities(), inputs, results, (rows,), self._keys, DYNAMIC)
        factor = arena.record("mixing scales", rows)
        pair = {"scale": results[2], "inverse": record}
        self._rows_kernel(
            mixing_scale(UNIT_FACTOR), pair, [RowTensor(view=factor.view, kind=DType.B32, steps=steps)], (rows,), 1
        )
        mixed = arena.new("mixed values", rows, shape.width, DType.BF16, bank=VECTORS)
        self._multiply_values(codes, factor, mixed, head)
        arena.free(sums, scales, factor, codes, group.scores, group.query_codes, group.query_scales)
        return mixed

    def _place(self, mixed: Tensor, at: _Part, out: Tensor) -> None:
        """Copy the mixed values of a part to its heads of ``out``; ``mixed`` is freed."""
        tokens, shared, width = len(at.tokens), self._shared, self._cache.shape.width
        source = RowTensor(view=mixed.view, kind=DType.BF16, steps=((shared, 0), (1, 0)))
        target = RowTensor(
            view=out.view,
            kind=DType.BF16,
            pixel=at.tokens.start,
            channel=2 * at.head * shared * width,
            steps=((1, 0), (0, 2 * width)),
        )
        self._rows_kernel(copy, {"x": source}, [target], (tokens, shared), width)
        self._arena.free(mixed)

    def _rows_kernel(
        self,
        kernel: Kernel | RowKernel,
        inputs: Mapping[str, RowTensor | Vector],
        results: Sequence[RowTensor],
        rows: tuple[int, ...],
        elements: int,
        dynamic: DynamicRow | None = None,
    ) -> None:
        emit_rows(self._image, kernel, inputs, results, rows=rows, elements=elements, dynamic=dynamic)

    def _mask(self, scores: Tensor, bias: Tensor, at: range) -> None:
        """Add the bias to the scores of this run's keys."""
        config, memory, tokens = self._config, self._image.memory, self._tokens
        installed = self._image.constants.install(place(config, [_ADD]), {}, memory.label)
        x = Stream(scores.view, 0, self._rows, 0, scores.view.channels, DType.BF16)
        y = Stream(bias.view, at.start, len(at), 0, bias.view.channels, DType.BF16)
        beat, beats = 2 * config.vector_lanes, tokens // config.vector_lanes
        loops = {"n0": beats, "n1": self._shared, "n2": len(at), "m0": beats, "m1": self._rows}
        loops |= {
            "x_dc0": beat,
            "x_dp1": 1,
            "x_dp2": self._shared,
            "y_dc0": beat,
            "y_dp2": 1,
            "o_dc0": beat,
            "o_dp1": 1,
        }
        loops |= {
            f"patch{i}": patch("VECTOR", f"{v}_c0", register=Register.POSITION, shift=1) for i, v in enumerate("xo")
        }
        emit_pass(memory, installed, loops, x, x, y=y)

    def _multiply_values(self, codes: Tensor, factor: Tensor, mixed: Tensor, head: int) -> None:
        config, memory, rows, shape = self._config, self._image.memory, self._rows, self._cache.shape
        program = place(config, _mix_steps())
        installed = self._image.constants.install(program, {}, memory.label)
        common = tile_fields(cut_tiles(config, rows, 0, config.scaled_accs), shape.value_tiles, rows)
        memory.recorder.emit(
            "MAC",
            memory.label,
            (codes.view.access(config, write=False),),
            **codes.view.fields("in"),
            **common,
            mode=int(Precision.A8W8),
            scales=1,
            replay=1,
            **row_geometry(rows, 1),
            tag=_VALUE_TAG,
            patch0=patch("MAC", "cw", register=Register.VALUE_WORDS),
        )
        memory.recorder.emit(
            "EPILOGUE",
            memory.label,
            (*installed.accesses, factor.view.access(config, write=False), mixed.view.access(config, write=True)),
            **mixed.view.fields("out"),
            out_type=int(DType.BF16),
            **factor.view.fields("res"),
            res_type=int(DType.B32),
            res_enable=1,
            res_row=1,
            **common,
            ctx=installed.ctx,
            wraps=installed.wraps,
        )


_KEY_TAG, _VALUE_TAG = 0x4B, 0x56


def _score_steps(scale: np.float32) -> list[Step]:
    """fp32(acc) * (sq * sk) * scale: y = sq, sk in the memory of column `KEY_SCALES`."""
    return [
        *[Step(op=DataflowOp.PASS)] * KEY_SCALES,
        Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, indexed=True, to_y=True),
        Step(op=DataflowOp.I2F),
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.FMUL, b=Source.IMM, imm=int(scale.view(np.int32))),
    ]


def _mix_steps() -> list[Step]:
    """fp32(acc) * y."""
    return [Step(op=DataflowOp.I2F), Step(op=DataflowOp.FMUL, b=Source.Y)]
