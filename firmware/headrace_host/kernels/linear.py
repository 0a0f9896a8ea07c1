"""Linear layers of quantised activations: codes and activation shifts times 4-bit groups or INT8 rows of weights.

y = fp32(acc) * (s * D) [+ bias], every step fp32: s of the row is the epilogue's residual, D (for INT8 rows divided by
their guard factor) and the bias of a channel lie in column memories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.config import Precision
from headrace.isa import DataflowOp, DType, Source
from headrace_host.compiler.constants import ConstantStore, DdrImage, Vectors
from headrace_host.compiler.layout import ELEMENT_BYTES, View
from headrace_host.compiler.mapping import map_layer, pack_layer
from headrace_host.compiler.operands import Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.stream import Access
from headrace_host.compiler.tiling import ConvShape, Tiles, cut_tiles
from headrace_host.kernels.group_weights import GroupWeights
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.models.graph import GroupScales, Padding, Pair

UNIT_FACTOR = 8
"""What the MAC array multiplies sums of INT8 weights by before their shift."""
"""Bytes of the results a layer can have."""


def epilogue_steps(*, bias: bool) -> list[Step]:
    """x = accumulator, y = scale of the row."""
    steps = [
        Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, vector="scale", to_y=True),
        Step(op=DataflowOp.I2F),
        Step(op=DataflowOp.FMUL, b=Source.Y),
    ]
    return [*steps, Step(op=DataflowOp.FADD, b=Source.MEM, vector="bias")] if bias else steps


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Operands of a product: int8 ``codes`` with activation shifts and ``scales`` (fp32, L equal lanes a row), and
    results ``out`` of ``kind``; ``count`` rows from pixel ``first`` of codes and scales, from pixel 0 of ``out``.

    The MAC array may read the sub-bank of ``codes`` in every cycle and goes first: ``scales``, ``out`` and whatever
    else moves meanwhile belong in the other.
    """

    codes: View
    scales: View
    out: View
    count: int
    first: int = 0
    kind: DType = DType.BF16


class Linear:
    """One layer's weights in DDR, and the commands that multiply rows by them.

    `stream` sends weights to the ring, in the order of the `multiply` calls that use them; with ``rows`` of more than a
    tile and weights that the ring cannot keep, `multiply` streams them itself.
    """

    def __init__(
        self,
        memory: Memory,
        constants: ConstantStore,
        image: DdrImage,
        name: str,
        weights: GroupWeights | RowWeights,
        rows: int,
        bias: NDArray[np.float32] | None = None,
    ) -> None:
        self._memory, self._constants, self._config = memory, constants, memory.config
        self.name, self._rows = name, rows
        if isinstance(weights, GroupWeights):
            self._precision, groups, scale = Precision.A8W4, weights.groups, weights.scale
        else:
            self._precision, groups, scale = Precision.A8W8, GroupScales(), weights.scale / np.float32(UNIT_FACTOR)
        self.outputs, inputs = weights.codes.shape
        one = Pair(1, 1)
        shape = ConvShape(
            in_h=rows, in_w=1, in_c=inputs, out_h=rows, out_w=1, out_c=self.outputs, kernel=one, stride=one,
            dilation=one, padding=Padding(0, 0, 0, 0),
        )  # fmt: skip
        self._mapping = map_layer(
            self._config, shape, precision=self._precision, fold=False, interleave=0, depthwise=False, groups=1,
            scales=groups,
        )  # fmt: skip
        self._kc = groups.kc
        self._vectors: Vectors = {"scale": scale}
        if bias is not None:
            self._vectors["bias"] = bias.astype(np.float32)
        self._program = place(self._config, epilogue_steps(bias=bias is not None))
        self._weights_at = image.placed(
            name, lambda: pack_layer(self._config, self._mapping, weights.codes[:, None, None, :], scales=groups)
        )

    @property
    def tiles(self) -> int:
        """n tiles: groups of C outputs."""
        return self._mapping.n_tiles

    def _whole(self, count: int) -> bool:
        """Whether every weight is streamed once for ``count`` rows."""
        tiles = cut_tiles(self._config, count, 0, self._mapping.accs)
        return tiles.m_tiles == 1 or self._mapping.entries <= self._config.ring_entries

    def stream(self, count: int, first: int = 0, n_tiles: int | None = None) -> None:
        """Send the weights of ``n_tiles`` (all) n tiles from ``first`` on to the ring, for ``count`` rows."""
        if self._whole(count):
            self._weight(first, self.tiles - first if n_tiles is None else n_tiles, 1)

    def _weight(self, first: int, n_tiles: int, repeat: int) -> None:
        entries = self._mapping.entries
        self._memory.recorder.emit(
            "WEIGHT",
            self._memory.label,
            ddr=self._weights_at + first * entries * self._mapping.entry_bytes,
            entries=entries * n_tiles,
            repeat=repeat,
            scales=int(self._kc is not None),
            tag=self._tag,
        )

    @property
    def _tag(self) -> int:
        return sum(self.name.encode()) & 0xFF

    def multiply(self, rows: Rows, first: int = 0, n_tiles: int | None = None) -> None:
        """Multiply ``rows`` by the weights of ``n_tiles`` n tiles from ``first`` on; ``out`` holds these outputs."""
        config, mapping = self._config, self._mapping
        count = self.tiles - first if n_tiles is None else n_tiles
        start, end = first * config.cols, min((first + count) * config.cols, self.outputs)
        vectors: Vectors = {name: vector[start:end] for name, vector in self._vectors.items()}
        installed = self._constants.install(self._program, vectors, self._memory.label)
        kc_base = 0
        touched: tuple[Access, ...] = ()
        if self._kc is not None:
            kc_base, touched = self._constants.install_shifts(self._kc[start:end], self._memory.label)
        tiles = cut_tiles(config, rows.count, 0, mapping.accs)
        whole = self._whole(rows.count)
        step = count if whole else 1
        pixels = (rows.first, rows.first + rows.count)
        for n in range(0, count, step):
            if not whole:
                self._weight(first + n, 1, tiles.m_tiles)
            self._memory.recorder.emit(
                "MAC",
                self._memory.label,
                (rows.codes.access(config, write=False, pixels=pixels), *touched),
                **rows.codes.fields("in", pixel=rows.first),
                **tile_fields(tiles, step, rows.count),
                mode=int(self._precision),
                scales=1,
                replay=int(mapping.entries <= config.ring_entries),
                **row_geometry(rows.count, mapping.words),
                tag=self._tag,
                kc_base=kc_base + n,
            )
            size = ELEMENT_BYTES[rows.kind]
            span = (size * n * config.cols, size * min((n + step) * config.cols, end - start))
            self._memory.recorder.emit(
                "EPILOGUE",
                self._memory.label,
                (
                    *installed.accesses,
                    rows.scales.access(config, write=False, pixels=pixels),
                    rows.out.access(config, write=True, pixels=(0, rows.count), channels=span),
                ),
                **rows.out.fields("out", channel=span[0]),
                out_type=int(rows.kind),
                **rows.scales.fields("res", pixel=rows.first),
                res_type=int(DType.B32),
                res_enable=1,
                res_row=1,
                **tile_fields(tiles, step, rows.count),
                channels=(span[1] - span[0]) // size,
                ctx=installed.ctx,
                wraps=installed.wraps,
                idx_base=installed.idx_base + n * config.acc_beats,
            )


def row_geometry(rows: int, words: int) -> dict[str, int]:
    """Fields of a MAC command over ``rows`` consecutive pixels of ``words`` words each."""
    ones = ("in_h", "kh", "kw", "stride_y", "stride_x", "dil_y", "dil_x")
    return {**dict.fromkeys(ones, 1), "in_w": rows, "out_w": rows, "cw": words}


def tile_fields(tiles: Tiles, n_tiles: int, rows: int) -> dict[str, int]:
    """What MAC and EPILOGUE share."""
    return {
        "n_tiles": n_tiles,
        "m_tiles": tiles.m_tiles,
        "m_count": rows,
        "t_count": tiles.t_count,
        "t_last": tiles.t_last,
    }
