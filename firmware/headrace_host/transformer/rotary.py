"""Rotary positions on the dataflow array: the halves of each head turn by tables of cosines and sines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, Dest, DType, Source
from headrace.isa.assembler import patch
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.stream import Access, Space
from headrace_host.compiler.vector_pass import Stream, emit_pass
from headrace_host.errors import CompileError
from headrace_host.kernels.image import KernelImage
from headrace_host.models.language import Rotary, RotaryPairs
from headrace_host.transformer.positions import Register
from headrace_host.transformer.tensors import Tensor

COSINES = 3
"""Column of the cosines; sines follow. The columns of different vectors differ: none waits for another's readers."""


def half_order(rotary: Rotary, heads: int, width: int) -> NDArray[np.int64]:
    """Order of the outputs of a projection to ``heads`` in which pairs are halves: i and i + width / 2.

    Queries and keys in the same order have the same products, so that interleaved pairs cost nothing.
    """
    order = np.arange(heads * width).reshape(heads, width)
    if rotary.pairs is RotaryPairs.interleaved:
        order = np.concatenate([order[:, 0::2], order[:, 1::2]], axis=1)
    return order.reshape(-1)


def tables(rotary: Rotary, positions: int) -> bytes:
    """Cosines of all positions, then sines: fp32 [2, positions, head width / 2], their values exact in bf16."""
    angles = np.arange(positions, dtype=np.float32)[:, None] * rotary.frequencies.astype(np.float32)
    values = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).tobytes()


class Turn:
    """Turns heads by the positions of their tokens: first' = first cos - second sin, second' = second cos + first sin.

    Two VECTOR commands for a range of heads; one element of a half a lane. The tables of the run's tokens lie in the
    columns' memories, where `load` puts them.
    """

    def __init__(self, image: KernelImage, rotary: Rotary, positions: int, tokens: int, width: int) -> None:
        self._image, self._config = image, image.config
        self._half, self._tokens, self._positions = width // 2, tokens, positions
        lanes = self._config.vector_lanes
        if (
            self._half % lanes
            or tokens * self._half // lanes > self._config.column_words
            or self._config.columns < COSINES + 3
        ):
            raise CompileError(
                f"machine '{self._config.name}': {tokens} tokens of {self._half} angles need "
                f"{-(-tokens * self._half // lanes)} words in each of three columns; take fewer tokens at once"
            )
        self._address = image.image.placed(f"rotary tables {positions}", lambda: tables(rotary, positions))

    def load(self) -> None:
        """LOAD the tables of this run's tokens."""
        config, size = self._config, 4 * self._half
        words = self._tokens * self._half // config.vector_lanes
        memory = self._image.memory
        self._image.constants.overwrite(COSINES, COSINES + 1)
        memory.recorder.emit(
            "LOAD",
            memory.label,
            (_columns(config, words, write=True),),
            dest=Dest.COLUMN,
            ddr=self._address,
            n0=self._tokens * size,
            n1=2,
            s1=self._positions * size,
            d1=config.column_words * config.vector_lanes,
            pix_bytes=4,
            element=COSINES * config.column_words * config.vector_lanes,
            patch0=patch("LOAD", "ddr", register=Register.POSITION, shift=size.bit_length() - 1),
        )

    def emit(self, source: Tensor, heads: range, tokens: range, out: Tensor) -> None:
        """Turn ``heads`` of ``tokens`` of ``source`` (pixel: token); ``out`` has them in this order, a pixel each."""
        for second, last in ((False, DataflowOp.FSUB), (True, DataflowOp.FADD)):
            self._half_pass(source, heads, tokens, out, second, last)

    def _half_pass(
        self, source: Tensor, heads: range, tokens: range, out: Tensor, second: bool, last: DataflowOp
    ) -> None:
        config, memory, count = self._config, self._image.memory, len(heads)
        program = place(config, _steps(last))
        installed = self._image.constants.install(program, {}, memory.label)
        half, lanes = self._half * source.size, config.vector_lanes
        start = 2 * heads.start * half
        own, other = (start + half, start) if second else (start, start + half)
        width = (2 * count - 1) * half
        x, y = (Stream(source.view, tokens.start, len(tokens), at, width, DType.BF16) for at in (own, other))
        beat, head = lanes * source.size, 2 * half
        target = Stream(out.view, 0, len(tokens) * count, second * half, half, DType.BF16)
        beats = self._half // lanes
        loops = {"n0": beats, "n1": len(tokens), "n2": count, "idx_base": tokens.start * beats, "idx_step": beats}
        for name in "xy":
            loops |= {f"{name}_dc0": beat, f"{name}_dp1": 1, f"{name}_dc2": head}
        loops |= {"m0": beats, "m1": len(tokens), "m2": count, "o_dc0": beat, "o_dp1": count, "o_dp2": 1}
        words = self._tokens * beats
        emit_pass(memory, installed, loops, x, target, y=y, reads=(_columns(config, words, write=False),))


def _columns(config: NpuConfig, words: int, *, write: bool) -> Access:
    """The tables in their columns."""
    starts = (column * config.column_words for column in (COSINES, COSINES + 1))
    return Access(Space.COLUMN, tuple((start, start + words) for start in starts), write)


def _steps(last: DataflowOp) -> list[Step]:
    return [
        *[Step(op=DataflowOp.PASS)] * COSINES,
        Step(op=DataflowOp.FMUL, b=Source.MEM, indexed=True),
        Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, indexed=True, to_y=True),
        Step(op=last, b=Source.Y),
    ]
