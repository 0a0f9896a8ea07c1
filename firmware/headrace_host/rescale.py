"""Constants of the conversion of codes to another scale, by TFLite's default (XNNPACK) rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace_host.errors import ModelError
from headrace_host.models.graph import Graph, Quantize, describe

SHIFT = 8


@dataclass(frozen=True, kw_only=True)
class RescaleConstants:
    """``y = clamp(((x - source_zero) * multiplier + 128) >> 8) + zero_point)``."""

    multiplier: int
    source_zero: int
    zero_point: int


def rescaling(graph: Graph, node: Quantize) -> RescaleConstants:
    """Constants of a conversion to int8; from uint8 only where codes move by 128 (another rule holds otherwise)."""
    source, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    ratio = np.float32(source.scalar_scale / output.scalar_scale)
    moved = ratio == 1 and source.zero_point == output.zero_point + 128
    if source.dtype == "uint8" and not moved:
        raise ModelError(f"{describe(node)}: uint8 codes must keep their scale, zero points 128 apart; convert to int8")
    if not 2.0**-8 <= ratio <= 2.0**7:
        raise ModelError(f"{describe(node)}: scales differ by {ratio:g}, beyond 2**-8..2**7; requantise")
    return RescaleConstants(
        multiplier=int(np.rint(ratio * (1 << SHIFT))), source_zero=source.zero_point, zero_point=output.zero_point
    )
