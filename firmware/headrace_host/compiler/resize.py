"""Lowering of nearest-neighbour enlargement: loops of stride 0 read a pixel again."""

from __future__ import annotations

from headrace.isa import DataflowOp
from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.programs import Step, place
from headrace_host.compiler.strips import Input, in_strips
from headrace_host.compiler.vector_pass import Stream, emit_pass
from headrace_host.models.graph import Pair


def lower_resize(
    memory: Memory,
    constants: ConstantStore,
    name: str,
    source: Location,
    output: Location,
    *,
    height: int,
    width: int,
    factor: Pair,
) -> None:
    """Enlarge an image of ``height`` by ``width`` pixels; one command an input row."""
    config = memory.config
    installed = constants.install(place(config, [Step(op=DataflowOp.PASS)]), {}, memory.label)
    lanes, channels = config.vector_lanes, output.channels
    blocks, wide = -(-channels // lanes), width * factor.x
    inputs = [Input(source, lambda first, last: (first * width, last * width))]
    # A row of the loop below is what one input row becomes.
    rows = {"rows": height, "row_pixels": factor.y * wide}
    for strip in in_strips(memory, name, inputs, output, **rows):
        (view, at), (target, target_at) = strip.inputs[0], strip.output
        for row in range(strip.last - strip.first):
            loops = {
                **{"n0": blocks, "x_dc0": lanes, "idx_loop": 0},
                **{"n1": factor.x, "n2": width, "x_dp2": 1, "n3": factor.y},
                **{"m0": blocks, "o_dc0": lanes, "m1": wide, "o_dp1": 1, "m2": factor.y, "o_dp2": wide},
            }
            x = Stream(view, at + row * width, width, 0, channels)
            out = Stream(target, target_at + row * factor.y * wide, factor.y * wide, 0, channels)
            emit_pass(memory, installed, loops, x, out, channels=channels)
