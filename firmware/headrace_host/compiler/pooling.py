"""Lowering of pooling: windows at the border are smaller, padding takes no part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.strips import Input, Strip, in_strips
from headrace_host.compiler.tiling import ConvShape
from headrace_host.compiler.vector_pass import Codes, Stream, emit_pass


@dataclass(frozen=True, kw_only=True)
class PoolLayer:
    """``steps(n)`` is the program that reduces windows of n elements."""

    name: str
    steps: Callable[[int], list[Step]]
    source: Location
    output: Location
    shape: ConvShape
    codes: Codes


@dataclass(frozen=True)
class _Run:
    """Outputs ``[first, last)`` of one axis with windows of ``taps`` inputs; that of the first begins at ``start``."""

    first: int
    last: int
    start: int
    taps: int


def _runs(outputs: int, inputs: int, kernel: int, stride: int, padding: int) -> Iterator[_Run]:
    """The outputs of one axis in runs of equal windows; windows cut at the start of the axis stand alone."""

    def window(position: int) -> tuple[int, int]:
        start = position * stride - padding
        return max(0, start), min(inputs, start + kernel)

    def shape(position: int) -> tuple[int, int | None]:
        start, end = window(position)
        return end - start, position if position * stride < padding else None

    for (taps, _), group in itertools.groupby(range(outputs), shape):
        members = list(group)
        yield _Run(members[0], members[-1] + 1, window(members[0])[0], taps)


class PoolLowering:
    """Emits the commands of one pooling layer: one for each output row, run of equal windows and channel part."""

    def __init__(self, layer: PoolLayer, memory: Memory, constants: ConstantStore) -> None:
        self._layer, self._memory, self._constants = layer, memory, constants
        shape = layer.shape
        self._columns = list(_runs(shape.out_w, shape.in_w, shape.kernel.x, shape.stride.x, shape.padding.left))
        self._rows = {
            y: run
            for run in _runs(shape.out_h, shape.in_h, shape.kernel.y, shape.stride.y, shape.padding.top)
            for y in range(run.first, run.last)
        }

    def emit(self) -> None:
        """All commands of the layer, strip by strip."""
        layer, shape = self._layer, self._layer.shape

        def reads(first: int, last: int) -> tuple[int, int]:
            start, end = shape.input_rows(first, last)
            return start * shape.in_w, end * shape.in_w

        inputs = [Input(layer.source, reads)]
        rows = {"rows": shape.out_h, "row_pixels": shape.out_w}
        for strip in in_strips(self._memory, layer.name, inputs, layer.output, **rows):
            for low, high in itertools.pairwise(self._channel_cuts()):
                for y in range(strip.first, strip.last):
                    for run in self._columns:
                        self._emit_run(strip, y, run, low, high)

    def _channel_cuts(self) -> Sequence[int]:
        """Channels that are complete early come first."""
        source = self._layer.source
        return sorted({0, source.settled_channels, source.channels})

    def _emit_run(self, strip: Strip, y: int, run: _Run, low: int, high: int) -> None:
        """Channels ``[low, high)`` of a run in output row ``y``: loops over window, channel block, output column."""
        shape, config = self._layer.shape, self._memory.config
        lanes, blocks, row = config.vector_lanes, -(-(high - low) // config.vector_lanes), self._rows[y]
        top = row.start + (y - row.first) * shape.stride.y
        window = row.taps * run.taps
        installed = self._constants.install(place(config, self._layer.steps(window)), {}, self._memory.label)
        columns = run.last - run.first
        if installed.wraps:
            columns = max(1, config.gasket_beats // (window * blocks))
        (source, source_at), (target, target_at) = strip.inputs[0], strip.output
        source_at += (top - shape.input_rows(strip.first, strip.last)[0]) * shape.in_w + run.start
        target_at += (y - strip.first) * shape.out_w + run.first
        for skip in range(0, run.last - run.first, columns):
            count = min(columns, run.last - run.first - skip)
            loops = {
                **{"n0": run.taps, "x_dp0": 1},
                **{"n1": row.taps, "x_dp1": shape.in_w},
                **{"n2": blocks, "x_dc2": lanes, "idx_loop": 2},
                **{"n3": count, "x_dp3": shape.stride.x},
                **{"m0": blocks, "o_dc0": lanes, "m1": count, "o_dp1": 1},
            }
            extent = (row.taps - 1) * shape.in_w + (count - 1) * shape.stride.x + run.taps
            x = Stream(source, source_at + skip * shape.stride.x, extent, low, high - low)
            out = Stream(target, target_at + skip, count, low, high - low)
            codes = self._layer.codes
            emit_pass(self._memory, installed, loops, x, out, codes=codes, channels=high - low)
