"""Workloads of the bench command: matrix products and convolutions of known size with random operands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace_host.models.graph import Conv2D, Graph, Padding, Pair, Tensor
from headrace_host.session import Sample


@dataclass(frozen=True, kw_only=True)
class ConvCase:
    """One convolution; a matrix product of M x K by K x N is a 1x1 one over M pixels in a row."""

    name: str
    height: int
    width: int
    channels: int
    filters: int
    kernel: int = 1
    stride: int = 1

    def graph(self, seed: int = 0) -> Graph:
        """A graph of this one layer with random weights, scaled so that outputs use the int8 range."""
        rng = np.random.default_rng(seed)
        pad = (self.kernel - 1) // 2
        reduction = self.kernel**2 * self.channels
        weight = rng.integers(-127, 128, (self.filters, self.kernel, self.kernel, self.channels), np.int8)
        bias = rng.integers(-4000, 4000, self.filters).astype(np.int32)
        scale = (rng.uniform(0.5, 2.0, self.filters) / (100 * np.sqrt(reduction))).astype(np.float32)
        node = Conv2D(
            name=self.name,
            index=0,
            inputs=("x", "w", "b"),
            output="y",
            kernel=Pair(self.kernel, self.kernel),
            stride=Pair(self.stride, self.stride),
            padding=Padding(pad, pad, pad, pad),
        )
        out = node.output_extent(self.height, self.width)
        one = np.ones(1, np.float32)
        tensors = [
            Tensor(name="x", shape=(1, self.height, self.width, self.channels), dtype="int8", scale=one, zero_point=3),
            Tensor(name="w", shape=weight.shape, dtype="int8", scale=scale, data=weight),
            Tensor(name="b", shape=bias.shape, dtype="int32", scale=one, data=bias),
            Tensor(name="y", shape=(1, *out, self.filters), dtype="int8", scale=one, zero_point=-5),
        ]
        return Graph(name=self.name, tensors={t.name: t for t in tensors}, nodes=(node,), inputs=("x",), outputs=("y",))

    def sample(self, seed: int = 1) -> Sample:
        """A random input."""
        shape = (1, self.height, self.width, self.channels)
        return Sample(self.name, np.random.default_rng(seed).integers(-128, 128, shape, np.int8))


def gemm_cases(m: int, k: int, n: int) -> list[ConvCase]:
    """The matrix product of ``m`` x ``k`` by ``k`` x ``n``."""
    return [ConvCase(name=f"gemm-{m}x{k}x{n}", height=1, width=m, channels=k, filters=n)]


def conv_cases(scale: int) -> list[ConvCase]:
    """Convolutions of ResNet-50's stages, channels divided by ``scale`` for small machines."""
    c64, c256 = 64 // scale, 256 // scale
    large = {"height": 56, "width": 56, "channels": c64, "filters": c64}
    return [
        ConvCase(name=f"conv-3x3s1-{c64}-{c64}-56x56", **large, kernel=3),
        ConvCase(name=f"conv-3x3s2-{c64}-{c64}-56x56", **large, kernel=3, stride=2),
        ConvCase(name=f"conv-1x1s1-{c256}-{c64}-28x28", height=28, width=28, channels=c256, filters=c64),
    ]
