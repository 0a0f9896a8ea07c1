"""Operators of neural networks beside those of `transformer`, as kernels: an example of each kind of value."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from headrace_host.kernels.functions import exp, recip, rsqrt
from headrace_host.kernels.trace import (
    BF16,
    Float32,
    Kernel,
    RowInt32,
    Stream,
    channels,
    element_number,
    kernel,
    row_max,
    row_min,
    row_sum,
)

_MAGNITUDE = 0x7FFFFFFF


def layer_norm(weights: NDArray[np.float32], bias: NDArray[np.float32], epsilon: float) -> Kernel:
    """(x - mean) / sqrt(variance + epsilon) * weights + bias (Ba et al. 2016, "Layer normalization")."""

    @kernel(result=BF16, name="layer norm")
    def norm(x: BF16) -> Stream:
        centred = x - row_sum(x) * (1 / len(weights))
        root = rsqrt(row_sum(centred * centred) * (1 / len(weights)) + epsilon)
        return centred * root * channels(weights.astype(np.float32)) + channels(bias.astype(np.float32))

    return norm


@kernel(result=BF16)
def softmax(x: BF16) -> Stream:
    """e^(x - largest x) over the row's sum of these."""
    p = exp(x - row_max(x))
    return p * recip(row_sum(p))


@kernel(result=BF16)
def gelu(x: BF16) -> Stream:
    """x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks, Gimpel 2016, "Gaussian error linear units")."""
    z = x * 0.7978845608 + x * x * x * 0.0356774081
    return x * recip(exp(z, factor=-2.0) + 1.0)


@kernel(result=RowInt32)
def argmax(x: Float32) -> Stream:
    """Number of the row's largest element, of equal ones the first."""
    smaller = (x < row_max(x)) & _MAGNITUDE
    return row_min(smaller | element_number())


@cache
def rope(distance: int) -> Kernel:
    """Rotary positions (Su et al. 2021, "RoFormer"): pairs of elements ``distance`` apart turn by their angle.

    Of images [tokens, width, 1]: ``up`` holds -sin where the partner is after the element and ``down`` +sin where it is
    before it, zero elsewhere. Distance 1 pairs neighbours, half the width pairs halves.
    """

    @kernel(result=BF16, name=f"rotary positions, pairs {distance} apart")
    def turned(x: BF16, cosine: Float32, up: Float32, down: Float32) -> Stream:
        return x * cosine + (x.shifted(0, distance) * up + x.shifted(0, -distance) * down)

    return turned
