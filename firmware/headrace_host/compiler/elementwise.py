"""Lowering of operations on single elements: additions no convolution takes along, requantisation, copies."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.isa import DType
from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.strips import Input, in_strips
from headrace_host.compiler.vector_pass import MAX_COUNT, Codes, Stream, emit_pass


def lower_elementwise(
    memory: Memory,
    constants: ConstantStore,
    name: str,
    steps: Sequence[Step],
    sources: Sequence[Location],
    output: Location,
    *,
    codes: Codes,
    kind: DType = DType.I8,
) -> None:
    """Apply ``steps`` to each element of one or two tensors of the output's shape; ``kind`` is that of their elements.

    Pixels are cut into chunks that a loop counter and, when the pass wraps, the gasket can hold.
    """
    config = memory.config
    installed = constants.install(place(config, steps), {}, memory.label)
    width, lanes = output.channels, config.vector_lanes
    blocks = -(-width // lanes)
    chunk = max(1, config.gasket_beats // blocks) if installed.wraps else MAX_COUNT
    inputs = [Input(location, lambda first, last: (first, last)) for location in sources]
    for strip in in_strips(memory, name, inputs, output, rows=output.pixels, row_pixels=1):
        for first in range(strip.first, strip.last, chunk):
            count, skip = min(chunk, strip.last - first), first - strip.first
            streams = [Stream(view, at + skip, count, 0, width, kind) for view, at in strip.inputs]
            view, at = strip.output
            loops = {
                **{"n0": blocks, "x_dc0": lanes, "y_dc0": lanes, "idx_loop": 0},
                **{"n1": count, "x_dp1": 1, "y_dp1": 1},
                **{"m0": blocks, "o_dc0": lanes, "m1": count, "o_dp1": 1},
            }
            target = Stream(view, at + skip, count, 0, width)
            y = streams[1] if len(streams) == 2 else None
            emit_pass(memory, installed, loops, streams[0], target, y=y, codes=codes, channels=width)
