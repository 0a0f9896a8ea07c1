"""Workloads of the bench command: matrix products and convolutions of known size with random operands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace_host.models.graph import (
    Conv2D,
    DepthwiseConv,
    Graph,
    GroupScales,
    Padding,
    Pair,
    Tensor,
)
from headrace_host.session import Sample

GROUP = 32
"""Codes that share group scales."""


@dataclass(frozen=True, kw_only=True)
class LayerCase:
    """One convolution; a matrix product of M x K by K x N is a 1x1 one over M pixels in a row.

    ``scales``: with group scales. Outputs are INT8 in every precision.
    """

    name: str
    height: int
    width: int
    channels: int
    filters: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    scales: bool = False
    precision: Precision = Precision.A8W8

    def graph(self, seed: int = 0) -> Graph:
        """A graph of this one layer with random weights, scaled so that outputs use the int8 range."""
        rng = np.random.default_rng(seed)
        act = 8 if self.precision is Precision.A4W4 else 128
        code = 127 if self.precision is Precision.A8W8 else 7
        shape = (self.filters, self.kernel, self.kernel, *(() if self.depthwise else (self.channels,)))
        weight = rng.integers(-code, code + 1, shape).astype(np.int8)
        typical = act * code / 3 * np.sqrt(weight[0].size)  # standard deviation of a sum
        factor = 1 if not self.scales else 8 if self.precision is Precision.A8W8 else 128
        scale = (rng.uniform(0.5, 2.0, self.filters) * 54 / (typical * factor)).astype(np.float32)
        bias = rng.integers(-int(typical), int(typical) + 1, self.filters).astype(np.int32)
        node = self._node()
        out = node.output_extent(self.height, self.width)
        one = np.ones(1, np.float32)
        kinds = ("int4" if act == 8 else "int8", "int4" if code == 7 else "int8")
        groups = self._scales(rng) if self.scales else None
        image = (1, self.height, self.width, self.channels)
        tensors = [
            Tensor(name="x", shape=image, dtype=kinds[0], scale=one, zero_point=3),
            Tensor(name="w", shape=shape, dtype=kinds[1], scale=scale, data=weight, group_scales=groups),
            Tensor(name="b", shape=bias.shape, dtype="int32", scale=one, data=bias),
            Tensor(name="y", shape=(1, *out, self.filters), dtype="int8", scale=one, zero_point=-5),
        ]
        return Graph(name=self.name, tensors={t.name: t for t in tensors}, nodes=(node,), inputs=("x",), outputs=("y",))

    def _node(self) -> Conv2D | DepthwiseConv:
        pad = (self.kernel - 1) // 2
        kind = DepthwiseConv if self.depthwise else Conv2D
        return kind(
            name=self.name,
            index=0,
            inputs=("x", "w", "b"),
            output="y",
            kernel=Pair(self.kernel, self.kernel),
            stride=Pair(self.stride, self.stride),
            padding=Padding(pad, pad, pad, pad),
        )

    def _scales(self, rng: np.random.Generator) -> GroupScales:
        if self.precision is Precision.A8W8:
            return GroupScales()
        shape = (self.filters, -(-self.channels // GROUP))
        return GroupScales(
            sd=rng.integers(64, 256, shape).astype(np.uint8),
            sm=rng.integers(-8, 8, shape).astype(np.int8),
            kc=rng.integers(0, 4, self.filters).astype(np.uint8),
        )

    def sample(self, seed: int = 1) -> Sample:
        """A random input."""
        limit = 8 if self.precision is Precision.A4W4 else 128
        shape = (1, self.height, self.width, self.channels)
        return Sample(self.name, np.random.default_rng(seed).integers(-limit, limit, shape).astype(np.int8))


def gemm_cases(m: int, k: int, n: int) -> list[LayerCase]:
    """The matrix product of ``m`` x ``k`` by ``k`` x ``n`` without and with group scales, and a ragged one."""
    square = _gemm(m, k, n)
    return [square, replace(square, name=f"{square.name}-scales", scales=True), _gemm(197, 250, 83)]


def _gemm(m: int, k: int, n: int) -> LayerCase:
    return LayerCase(name=f"gemm-{m}x{k}x{n}", height=1, width=m, channels=k, filters=n)


def conv_cases(divide: int) -> list[LayerCase]:
    """Convolutions of ResNet-50's and MobileNet's stages, channels divided by ``divide`` for small machines."""
    c64, c256 = 64 // divide, 256 // divide
    plain = LayerCase(name="", height=56, width=56, channels=c64, filters=c64, kernel=3)
    return [
        replace(plain, name=f"conv-3x3s1-{c64}-{c64}-56x56"),
        replace(plain, name=f"conv-3x3s2-{c64}-{c64}-56x56", stride=2),
        LayerCase(name=f"conv-1x1s1-{c256}-{c64}-28x28", height=28, width=28, channels=c256, filters=c64),
        replace(plain, name=f"depthwise-3x3s1-{c64}-56x56", depthwise=True),
        replace(plain, name=f"depthwise-3x3s2-{c64}-56x56", depthwise=True, stride=2),
    ]


def in_precision(cases: list[LayerCase], precision: Precision, config: NpuConfig) -> list[LayerCase]:
    """``cases`` that exist in ``precision`` on a machine: depthwise ones in A8W8, group scales where it has them."""
    return [
        replace(case, precision=precision)
        for case in cases
        if (precision is Precision.A8W8 or not case.depthwise) and (config.scaled(precision) or not case.scales)
    ]
