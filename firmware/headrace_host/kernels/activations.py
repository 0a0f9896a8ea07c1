"""Dynamic quantisation of activations on the dataflow array: bf16 rows to int8 codes with activation shifts.

Of a row: a = max(largest |x|, 1e-12), s = up(a / 127), up to the next bf16. Of a group of 32 with largest |x| g:
ka = largest j in 0..7 with g 2^j <= a; code = rne(x recip(s) 2^ka), clamped to +-127. recip is a table of 8
and one Newton step, which scale by powers of two exactly: recip(s) 2^ka is recip(z) with z = s 2^-ka, a bf16.

Six VECTOR commands; beats of each for 64 rows of 576 channels on `base`, and cycles from first to last of each; all of
them take 13,517, as the pass for s runs while that for a drains:

| pass | reads | writes | beats | cycles |
|---|---|---|---|---|
| largest of a group | x | g, bf16, packed | 4,608 | 4,696 |
| largest of a row | g | a, fp32, L equal lanes | 192 | 280 |
| scale | g | s, fp32, L equal lanes | 192 | 280 |
| steps | g, a | z, bf16, L equal lanes a group | 1,152 | 1,240 |
| codes | z, x | int8 codes | 4,608 | 4,697 |
| shifts | z, s | activation shift of each word | 2,304 | 2,391 |

The reciprocal comes from a table in a column memory: the low 8 bits of the pattern of z (the lowest exponent bit and
the fraction) choose recip of a number in 1..4, the other exponent bits a power of four.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DataflowOp, DType, Reduce, Source
from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.layout import View
from headrace_host.compiler.operands import Memory
from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.vector_pass import Stream, emit_pass
from headrace_host.errors import CompileError

_SEEDS = np.array([241, 216, 195, 178, 164, 152, 141, 132], np.float32) / np.float32(256)
_MAGNITUDE = 0x7FFFFFFF
_FRACTION = 23
"""Fraction bits of fp32."""


def reciprocals() -> NDArray[np.int32]:
    """Patterns of recip(v) for v = 1, 1 + 1/128 .. below 2, then twice these: a seed and one Newton step in fp32."""
    fraction = np.arange(128)
    value = (1 + fraction / 128).astype(np.float32)
    seed = _SEEDS[fraction >> 4]
    once = seed * (np.float32(2) - value * seed)
    return np.concatenate([once, once / 2]).astype(np.float32).view(np.int32)


def group_steps(beats: int) -> list[Step]:
    """Largest magnitude of the ``beats`` of a group, in all lanes."""
    return [_largest(beats)]


def row_steps(beats: int) -> list[Step]:
    """a of a row, in all lanes, from the ``beats`` with the magnitudes of its groups."""
    return [_largest(beats), Step(op=DataflowOp.FMAX, b=Source.IMM, imm=_pattern(1e-12))]


def scale_steps(beats: int) -> list[Step]:
    """s of a row, in all lanes, from the ``beats`` with the magnitudes of its groups."""
    return [*row_steps(beats), *_round_up_steps(Source.X)]


def step_steps() -> list[Step]:
    """z in all lanes from the magnitude x of a group and y = a, both in lane 0."""
    return [
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X),
        Step(op=DataflowOp.IMIN, b=Source.IMM, imm=(8 << _FRACTION) - 1),
        Step(op=DataflowOp.IAND, b=Source.IMM, imm=7 << _FRACTION),
        *_round_up_steps(Source.Y),
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X, reduce=Reduce.MAX, repeat=1, across=True),
    ]


def code_steps(columns: int, lanes: int) -> list[Step]:
    """Codes from the pattern x of z and y = the activations."""
    table = np.repeat(reciprocals()[:, None], lanes, axis=1)
    steps = [
        Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, table=table, to_y=True),
        Step(op=DataflowOp.ISHR, b=Source.IMM, sh=8),
        Step(op=DataflowOp.ISUB, a=Source.IMM, b=Source.X, imm=127),
        Step(op=DataflowOp.ISHL, b=Source.IMM, imm=_FRACTION + 1),
        Step(op=DataflowOp.FMUL, b=Source.Y),
        Step(op=DataflowOp.F2IC, b=Source.IMM, imm=(-127 & 0xFFFF) | 127 << 16),
    ]
    # The first columns' memories hold the vectors of layers.
    return [Step(op=DataflowOp.PASS) for _ in range(-len(steps) % columns)] + steps


def shift_steps() -> list[Step]:
    """ka from x = z and y = s."""
    return [
        Step(op=DataflowOp.ISUB, a=Source.Y, b=Source.X),
        Step(op=DataflowOp.ISHR, b=Source.IMM, sh=_FRACTION),
    ]


def _largest(beats: int) -> Step:
    return Step(
        op=DataflowOp.IAND, b=Source.IMM, imm=_MAGNITUDE, reduce=Reduce.MAX, repeat=beats, across=True
    )  # patterns of magnitudes order as integers


def _round_up_steps(a: Source) -> list[Step]:
    """up(a / 127) in the place of operand a."""
    to_y = a is Source.Y
    return [
        Step(op=DataflowOp.FMUL, a=a, b=Source.IMM, imm=_pattern(1 / 127), to_y=to_y),
        Step(op=DataflowOp.IADD, a=a, b=Source.IMM, imm=0xFFFF, to_y=to_y),
        Step(op=DataflowOp.IAND, a=a, b=Source.IMM, imm=0xFFFF0000, to_y=to_y),
    ]


def _pattern(value: float) -> int:
    return int(np.float32(value).view(np.int32))


@dataclass(frozen=True)
class _Operand:
    """A stream of a pass over rows, groups and beats: bytes from beat to beat, from group to group, of a group."""

    view: View
    kind: DType
    beat: int
    group: int
    extent: int


class ActivationQuantiser:
    """Emits the passes for one tensor in the scratchpad."""

    def __init__(self, memory: Memory, constants: ConstantStore, name: str) -> None:
        config = memory.config
        if GROUP_CODES % config.word_bytes:
            raise CompileError(f"'{name}': a word of machine '{config.name}' is larger than a group of {GROUP_CODES}")
        self._memory, self._constants, self._name = memory, constants, name
        self._lanes = config.vector_lanes
        self._beats = -(-GROUP_CODES // self._lanes)

    def emit(self, source: View, codes: View, scales: View) -> None:
        """Quantise ``source`` (bf16) to ``codes`` with activation shifts, and ``scales``: fp32, L equal lanes a row.

        Rows are pixels; their channels are a multiple of 32, the codes start at a word. Fastest when ``scales`` lies in
        the sub-bank of ``source``.

        Raises:
            OutOfScratchpad: when there is no room for the intermediate records.
        """
        lanes, beats, rows = self._lanes, self._beats, source.pixels
        groups = codes.channels // GROUP_CODES
        if codes.channels % GROUP_CODES or source.channels != 2 * codes.channels:
            raise CompileError(f"'{self._name}': {codes.channels} channels are not groups of {GROUP_CODES}")
        near = self._sub_bank(source)
        # Both streams of a pass should come from different sub-banks; that matters most for the codes.
        steps = self._memory.scratch(self._name, rows, 2 * lanes * groups, prefer=1 - near)
        packed = self._memory.scratch(self._name, rows, 2 * (groups + lanes - 1), prefer=1 - near)
        largest = self._memory.scratch(self._name, rows, 4 * lanes, prefer=1 - self._sub_bank(packed))
        word, row_beats = self._memory.config.word_bytes, -(-groups // lanes)

        x = _Operand(source, DType.BF16, 2 * lanes, 2 * GROUP_CODES, 2 * GROUP_CODES)
        # Each record of L equal lanes overwrites all but the first lane of the one before: what remains is packed.
        g = _Operand(packed, DType.BF16, 0, 2, 2 * lanes)
        self._pass(group_steps(beats), groups, beats, x, g, channels=GROUP_CODES, reduces=True)
        whole = _Operand(packed, DType.BF16, 2 * lanes, 0, packed.channels)
        a, s = (_Operand(view, DType.B32, 0, 0, 4 * lanes) for view in (largest, scales))
        self._pass(row_steps(row_beats), 1, row_beats, whole, a, reduces=True)
        self._pass(scale_steps(row_beats), 1, row_beats, whole, s, reduces=True)
        z = _Operand(steps, DType.BF16, 0, 2 * lanes, 2 * lanes)
        self._pass(step_steps(), groups, 1, g, z, y=a, channels=1)
        pattern = _Operand(steps, DType.I16, 0, 2 * lanes, 2 * lanes)
        out = _Operand(codes, DType.I8, lanes, GROUP_CODES, GROUP_CODES)
        program = code_steps(self._memory.config.columns, lanes)
        self._pass(program, groups, beats, pattern, out, y=x, channels=GROUP_CODES)
        ka = _Operand(codes, DType.KA, word, GROUP_CODES, GROUP_CODES)
        self._pass(shift_steps(), groups, GROUP_CODES // word, z, ka, y=s, channels=1)
        self._memory.release_buffers()

    def _sub_bank(self, view: View) -> int:
        return view.base // (self._memory.config.bank_words // 2)

    def _pass(
        self,
        steps: list[Step],
        groups: int,
        beats: int,
        x: _Operand,
        out: _Operand,
        *,
        y: _Operand | None = None,
        channels: int = 0,
        reduces: bool = False,
    ) -> None:
        """Commands of one pass over all rows; with ``reduces`` the beats of a group give one.

        ``channels``: lanes of a group that are valid, of every beat when it is 1.
        """
        memory, config = self._memory, self._memory.config
        installed = self._constants.install(place(config, steps), {}, memory.label)
        limit = config.gasket_beats if installed.wraps else x.view.pixels * groups * beats
        for row, rows, group, count in self._pieces(x.view.pixels, groups, beats, limit):
            loops = {"n0": beats, "n1": count, "n2": rows, "idx_loop": 3 if channels == 1 else 0}
            loops |= {"m0": 1 if reduces else beats, "m1": count, "m2": rows}
            streams = {}
            for prefix, operand in (("x", x), ("y", y), ("o", out)):
                if operand is not None:
                    loops |= {f"{prefix}_dc0": operand.beat, f"{prefix}_dc1": operand.group, f"{prefix}_dp2": 1}
                    first, width = group * operand.group, (count - 1) * operand.group + operand.extent
                    streams[prefix] = Stream(operand.view, row, rows, first, width, operand.kind)
            emit_pass(memory, installed, loops, streams["x"], streams["o"], y=streams.get("y"), channels=channels)

    def _pieces(self, rows: int, groups: int, beats: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
        """(first row, rows, first group, groups) of commands of at most ``limit`` beats."""
        if beats > limit:
            raise CompileError(
                f"'{self._name}': a group takes {beats} beats, the gasket of machine '{self._memory.config.name}' "
                f"holds {limit}; raise gasket_beats or columns"
            )
        height, width = max(1, limit // (groups * beats)), min(groups, limit // beats)
        for row in range(0, rows, height):
            for group in range(0, groups, width):
                yield row, min(height, rows - row), group, min(width, groups - group)
