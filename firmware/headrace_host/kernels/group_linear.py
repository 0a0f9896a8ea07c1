"""Linear layers with group scales: codes and activation shifts times Q4 weights, scaled to bf16 in the epilogue.

y = bf16(fp32(acc) * (s * D)), each product rounded to fp32: s of the row is the epilogue's residual, D of the channel
lies in a column memory.
"""

from __future__ import annotations

from headrace.config import Precision
from headrace.isa import DataflowOp, DType, Source
from headrace_host.compiler.constants import ConstantStore, DdrImage, Installed
from headrace_host.compiler.layout import View
from headrace_host.compiler.mapping import map_layer, pack_layer
from headrace_host.compiler.operands import Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.stream import Access
from headrace_host.compiler.tiling import ConvShape, Tiles, cut_tiles
from headrace_host.kernels.group_weights import GroupWeights
from headrace_host.models.graph import Padding, Pair

_OUT_BYTES = 2


def epilogue_steps() -> list[Step]:
    """x = accumulator, y = scale of the row."""
    return [
        Step(op=DataflowOp.FMUL, a=Source.Y, b=Source.MEM, vector="scale", to_y=True),
        Step(op=DataflowOp.I2F),
        Step(op=DataflowOp.FMUL, b=Source.Y),
    ]


class GroupLinear:
    """Emits the commands of one layer for ``rows`` rows; all operands but the weights are in the scratchpad."""

    def __init__(
        self, memory: Memory, constants: ConstantStore, image: DdrImage, name: str, weights: GroupWeights, rows: int
    ) -> None:
        self._memory, self._constants, self._config = memory, constants, memory.config
        self._weights, self._rows = weights, rows
        self._filters, inputs = weights.codes.shape
        one = Pair(1, 1)
        shape = ConvShape(
            in_h=rows, in_w=1, in_c=inputs, out_h=rows, out_w=1, out_c=self._filters, kernel=one, stride=one,
            dilation=one, padding=Padding(0, 0, 0, 0),
        )  # fmt: skip
        self._mapping = map_layer(
            self._config, shape, precision=Precision.A8W4, fold=False, interleave=0, depthwise=False, groups=1,
            scales=weights.groups,
        )  # fmt: skip
        codes = weights.codes[:, None, None, :]
        self._weights_at = image.place(pack_layer(self._config, self._mapping, codes, scales=weights.groups), name)

    def emit(self, codes: View, scales: View, out: View) -> None:
        """``codes`` with activation shifts and ``scales`` (fp32, L equal lanes a row) to ``out``, bf16.

        The MAC array may read the sub-bank of ``codes`` in every cycle and goes first: ``scales``, and whatever else is
        read meanwhile, belong in the other.
        """
        memory, mapping = self._memory, self._mapping
        program = place(self._config, epilogue_steps())
        installed = self._constants.install(program, {"scale": self._weights.scale}, memory.label)
        kc = self._weights.groups.kc
        assert kc is not None
        base, touched = self._constants.install_shifts(kc, memory.label)
        tiles = cut_tiles(self._config, self._rows, 0, mapping.accs)
        replay = mapping.entries <= self._config.ring_entries
        # Entries that the ring cannot keep over several m tiles stream again for each, n tile by n tile.
        whole = replay or tiles.m_tiles == 1
        step = mapping.n_tiles if whole else 1
        for first in range(0, mapping.n_tiles, step):
            # Weights of the whole layer stream beside the kernel before.
            emit = memory.recorder.emit_early if whole else memory.recorder.emit
            emit(
                "WEIGHT",
                memory.label,
                ddr=self._weights_at + first * mapping.entries * mapping.entry_bytes,
                entries=mapping.entries * step,
                repeat=1 if whole else tiles.m_tiles,
                scales=1,
                tag=memory.label & 0xFF,
            )
            read = (codes.access(self._config, write=False), *touched)
            self._emit_mac(codes, read, first, step, tiles, replay=replay, kc_base=base + first)
            self._emit_epilogue(scales, out, first, step, tiles, installed)

    def _emit_mac(
        self,
        codes: View,
        accesses: tuple[Access, ...],
        first: int,
        n_tiles: int,
        tiles: Tiles,
        *,
        replay: bool,
        kc_base: int,
    ) -> None:
        label = self._memory.label
        self._memory.recorder.emit(
            "MAC",
            label,
            accesses,
            **codes.fields("in"),
            **_tile_fields(tiles, n_tiles, self._rows),
            mode=int(Precision.A8W4),
            scales=1,
            replay=int(replay),
            in_h=1,
            in_w=self._rows,
            out_w=self._rows,
            kh=1,
            kw=1,
            cw=self._mapping.words,
            stride_y=1,
            stride_x=1,
            dil_y=1,
            dil_x=1,
            tag=label & 0xFF,
            kc_base=kc_base,
        )

    def _emit_epilogue(
        self, scales: View, out: View, first: int, n_tiles: int, tiles: Tiles, installed: Installed
    ) -> None:
        config = self._config
        start, end = first * config.cols, min((first + n_tiles) * config.cols, self._filters)
        span = (_OUT_BYTES * start, _OUT_BYTES * end)
        accesses = [
            *installed.accesses,
            scales.access(config, write=False),
            out.access(config, write=True, channels=span),
        ]
        self._memory.recorder.emit(
            "EPILOGUE",
            self._memory.label,
            accesses,
            **out.fields("out", channel=span[0]),
            out_type=int(DType.BF16),
            **scales.fields("res"),
            res_type=int(DType.B32),
            res_enable=1,
            res_row=1,
            **_tile_fields(tiles, n_tiles, self._rows),
            channels=end - start,
            ctx=installed.ctx,
            wraps=installed.wraps,
            idx_base=installed.idx_base + first * config.acc_beats,
        )


def _tile_fields(tiles: Tiles, n_tiles: int, rows: int) -> dict[str, int]:
    """What MAC and EPILOGUE share."""
    return {
        "n_tiles": n_tiles,
        "m_tiles": tiles.m_tiles,
        "m_count": rows,
        "t_count": tiles.t_count,
        "t_last": tiles.t_last,
    }
