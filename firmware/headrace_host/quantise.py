"""Constants of the machine's integer arithmetic, derived from the scales of a quantised graph.

Every formula reproduces TFLite's default (XNNPACK) kernels bit for bit; each fp32 step is rounded on its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace_host.errors import ModelError
from headrace_host.models.graph import (
    Activated,
    Add,
    AvgPool,
    Conv2D,
    DepthwiseConv,
    FullyConnected,
    Graph,
    Tensor,
    describe,
)

_INT32 = np.iinfo(np.int32)
_MULTIPLIER_BITS = 20
"""The larger of the two multipliers of a residual addition lies in [2**20, 2**21)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RequantConstants:
    """``y = clamp(round_half_even(fp32(acc + bias[c]) * scale[c]) + zero_point)``.

    ``acc`` is the plain sum of products, padding holding the input's zero point; ``bias`` contains ``-zp * sum(w)``.
    """

    bias: NDArray[np.int32]
    scale: NDArray[np.float32]
    zero_point: int
    act_min: int
    act_max: int


@dataclass(frozen=True, kw_only=True)
class AddConstants:
    """``y = clamp(((a - zp_a) * ma + (b - zp_b) * mb + 2**(shift - 1)) >> shift) + zero_point)``."""

    ma: int
    mb: int
    shift: int
    zp_a: int
    zp_b: int
    zero_point: int
    act_min: int
    act_max: int


@dataclass(frozen=True, kw_only=True)
class PoolConstants:
    """``y = clamp(sum / count)`` of raw int8 values, halves rounded away from zero."""

    count: int
    act_min: int
    act_max: int


def requantisation(graph: Graph, node: Conv2D | DepthwiseConv | FullyConnected) -> RequantConstants:
    """Per-channel constants of a convolution or fully connected layer."""
    source, weight, bias = (graph.tensors[name] for name in node.inputs)
    output = graph.tensors[node.output]
    if weight.data is None or bias.data is None:
        raise ModelError(f"{describe(node)}: weight and bias must be constants")
    filters = output.shape[-1]
    codes = weight.data.astype(np.int64).reshape(filters, -1)
    folded = bias.data.astype(np.int64) - source.zero_point * codes.sum(axis=1)
    largest = 255 if source.dtype == "uint8" else 128
    bound = np.abs(folded) + largest * np.abs(codes).sum(axis=1)
    if bound.max() > _INT32.max:
        raise ModelError(f"{describe(node)}: accumulator may reach {bound.max()}, beyond 32 bits; split the reduction")
    product = (source.scalar_scale * weight.scale).astype(np.float32)
    scale = (product / output.scalar_scale).astype(np.float32)
    low, high = _codes(node, output)
    return RequantConstants(
        bias=folded.astype(np.int32),
        scale=np.broadcast_to(scale, (filters,)).copy(),
        zero_point=output.zero_point,
        act_min=low,
        act_max=high,
    )


def _codes(node: Activated, output: Tensor) -> tuple[int, int]:
    """Smallest and largest code of an activated output."""
    low, high = (-8, 7) if output.dtype == "int4" else (-128, 127)
    return max(node.act_min, low), min(node.act_max, high)


def addition(graph: Graph, node: Add) -> AddConstants:
    """Constants of a residual addition (XNNPACK's fixed-point rule)."""
    a, b = (graph.tensors[name] for name in node.inputs)
    output = graph.tensors[node.output]
    ratios = [np.float32(tensor.scalar_scale / output.scalar_scale) for tensor in (a, b)]
    largest = max(float(ratio) for ratio in ratios)
    if not 2.0**-10 <= largest < 2.0**8 or min(float(ratio) for ratio in ratios) < 2.0**-10:
        raise ModelError(f"{describe(node)}: input and output scales differ by more than 2**-10..2**8; requantise")
    shift = _MULTIPLIER_BITS - (math.frexp(largest)[1] - 1)
    ma, mb = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
    low, high = _codes(node, output)
    return AddConstants(
        ma=ma,
        mb=mb,
        shift=shift,
        zp_a=a.zero_point,
        zp_b=b.zero_point,
        zero_point=output.zero_point,
        act_min=low,
        act_max=high,
    )


def average_pool(node: AvgPool) -> PoolConstants:
    """Constants of an average pool without padding."""
    if any(node.padding):
        raise ModelError(f"{describe(node)}: padded average pooling is not supported; use VALID padding")
    return PoolConstants(count=node.kernel.y * node.kernel.x, act_min=node.act_min, act_max=node.act_max)
