"""Lowering of pooling and of additions that no convolution can take along: passes of the dataflow array alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.tiling import ConvShape

MAX_COUNT = (1 << 15) - 1
"""Largest loop count and stride of a VECTOR command used here (strides are signed 16 bits)."""


@dataclass(frozen=True, kw_only=True)
class VectorLayer:
    """An operation of the dataflow array alone; all operands are resident. ``second`` makes it a sum of two tensors."""

    name: str
    label: int
    steps: list[Step]
    source: Location
    output: Location
    shape: ConvShape
    zero_point: int
    act_min: int
    act_max: int
    second: Location | None = None


class VectorLowering:
    """Emits the VECTOR commands of one layer."""

    def __init__(self, layer: VectorLayer, memory: Memory, constants: ConstantStore) -> None:
        self._layer, self._memory, self._config = layer, memory, memory.config
        self._installed = constants.install(place(memory.config, layer.steps), {}, layer.label)
        self._blocks = -(-layer.source.channels // memory.config.vector_lanes)

    def emit(self) -> None:
        """All commands of the layer."""
        if self._layer.second is None:
            self._pool()
        else:
            self._sum()
        self._layer.output.loaded = self._layer.output.pixels

    def _pool(self) -> None:
        """Commands for channels that are complete early and for the rest, for each output row."""
        source = self._layer.source
        cuts = (0, source.settled_channels, source.channels) if source.settled_channels else (0, source.channels)
        for first, last in itertools.pairwise(cuts):
            for y in range(self._layer.shape.out_h):
                self._pool_row(y, first, last)

    def _pool_row(self, y: int, low: int, high: int) -> None:
        """Channels ``[low, high)`` of output row ``y``: loops over window, channel block, output column."""
        shape, lanes = self._layer.shape, self._config.vector_lanes
        window, blocks = shape.kernel.y * shape.kernel.x, -(-(high - low) // lanes)
        columns = shape.out_w
        if self._installed.wraps:
            columns = max(1, self._config.gasket_beats // (window * blocks))
        for first in range(0, shape.out_w, columns):
            count = min(columns, shape.out_w - first)
            at = y * shape.stride.y * shape.in_w + first * shape.stride.x
            rows = (shape.kernel.y - 1) * shape.in_w + (count - 1) * shape.stride.x + shape.kernel.x
            loops = {
                **{"n0": shape.kernel.x, "x_dp0": 1},
                **{"n1": shape.kernel.y, "x_dp1": shape.in_w},
                **{"n2": blocks, "x_dc2": lanes, "idx_loop": 2},
                **{"n3": count, "x_dp3": shape.stride.x},
                **{"m0": blocks, "o_dc0": lanes, "m1": count, "o_dp1": 1},
            }
            target = y * shape.out_w + first
            self._emit(loops, (at, at + rows), (target, target + count), (low, high))

    def _sum(self) -> None:
        """Pixels in chunks that a loop counter and, when the pass wraps, the gasket can hold."""
        lanes, pixels = self._config.vector_lanes, self._layer.source.pixels
        chunk = MAX_COUNT
        if self._installed.wraps:
            chunk = max(1, self._config.gasket_beats // self._blocks)
        for first in range(0, pixels, chunk):
            count = min(chunk, pixels - first)
            loops = {
                **{"n0": self._blocks, "x_dc0": lanes, "y_dc0": lanes, "idx_loop": 0},
                **{"n1": count, "x_dp1": 1, "y_dp1": 1},
                **{"m0": self._blocks, "o_dc0": lanes, "m1": count, "o_dp1": 1},
            }
            span = (first, first + count)
            self._emit(loops, span, span, (0, self._layer.source.channels))

    def _emit(
        self, loops: dict[str, int], read: tuple[int, int], written: tuple[int, int], channels: tuple[int, int]
    ) -> None:
        layer, config = self._layer, self._config
        x, out = layer.source.view, layer.output.view
        assert x is not None and out is not None
        accesses = [
            *self._installed.accesses,
            x.access(config, write=False, pixels=read, channels=channels),
            out.access(config, write=True, pixels=written, channels=channels),
        ]
        fields = {
            **x.fields("x", pixel=read[0], channel=channels[0], typed=True),
            **out.fields("o", pixel=written[0], channel=channels[0], typed=True),
        }
        if layer.second is not None:
            y = layer.second.view
            assert y is not None
            accesses.append(y.access(config, write=False, pixels=read))
            fields |= {"y_enable": 1, **y.fields("y", pixel=read[0], typed=True)}
        self._memory.recorder.emit(
            "VECTOR",
            layer.label,
            accesses,
            **fields,
            **loops,
            channels=channels[1] - channels[0],
            ctx=self._installed.ctx,
            wraps=self._installed.wraps,
            zp=layer.zero_point,
            lo=layer.act_min,
            hi=layer.act_max,
        )
