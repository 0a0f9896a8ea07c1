"""Small random quantised graphs for the compiler tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headrace_host.models.graph import (
    DTYPES,
    Add,
    AvgPool,
    Concat,
    Conv2D,
    DepthwiseConv,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Padding,
    Pair,
    Quantize,
    Reshape,
    Resize,
    Softmax,
    Tensor,
)


class Builder:
    """Builds a graph layer by layer; every method returns the name of its output."""

    def __init__(self, seed: int, shape: tuple[int, ...], *, unsigned: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.source = self._activation(shape, "input")
        if unsigned:
            tensor = self.tensors["input"]
            self.tensors["input"] = replace(tensor, dtype="uint8", zero_point=tensor.zero_point + 128)

    def _activation(self, shape: tuple[int, ...], name: str, like: str | None = None) -> str:
        scale = np.array([self.rng.uniform(0.02, 0.1)], np.float32)
        zero = int(self.rng.integers(-128, 128))
        if like is not None:
            scale, zero = self.tensors[like].scale, self.tensors[like].zero_point
        self.tensors[name] = Tensor(name=name, shape=shape, dtype="int8", scale=scale, zero_point=zero)
        return name

    def _constants(self, name: str, shape: tuple[int, ...]) -> tuple[str, str]:
        filters = shape[0]
        weight = self.rng.integers(-127, 128, shape, np.int8)
        scale = self.rng.uniform(0.5, 2.0, filters).astype(np.float32) / np.float32(60 * np.sqrt(weight[0].size))
        bias = self.rng.integers(-3000, 3000, filters).astype(np.int32)
        self.tensors[f"{name}/w"] = Tensor(name=f"{name}/w", shape=shape, dtype="int8", scale=scale, data=weight)
        self.tensors[f"{name}/b"] = Tensor(
            name=f"{name}/b", shape=(filters,), dtype="int32", scale=np.ones(1, np.float32), data=bias
        )
        return f"{name}/w", f"{name}/b"

    def conv(
        self,
        source: str,
        filters: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (1, 1, 1, 1),
        dilation: tuple[int, int] = (1, 1),
        act: tuple[int, int] = (-128, 127),
        like: str | None = None,
    ) -> str:
        name, image = f"conv{len(self.nodes)}", self.tensors[source].shape
        weight, bias = self._constants(name, (filters, *kernel, image[3]))
        node = Conv2D(
            name=name, index=len(self.nodes), inputs=(source, weight, bias), output=name, kernel=Pair(*kernel),
            stride=Pair(*stride), padding=Padding(*padding), dilation=Pair(*dilation), act_min=act[0], act_max=act[1],
        )  # fmt: skip
        extent = node.output_extent(image[1], image[2])
        self.nodes.append(node)
        return self._activation((1, *extent, filters), name, like=like)

    def depthwise(
        self, source: str, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1), padding: int = 1
    ) -> str:
        name, image = f"depthwise{len(self.nodes)}", self.tensors[source].shape
        weight, bias = self._constants(name, (image[3], *kernel))
        node = DepthwiseConv(
            name=name, index=len(self.nodes), inputs=(source, weight, bias), output=name, kernel=Pair(*kernel),
            stride=Pair(*stride), padding=Padding(*4 * [padding]),
        )  # fmt: skip
        self.nodes.append(node)
        return self._activation((1, *node.output_extent(image[1], image[2]), image[3]), name)

    def add(self, a: str, b: str) -> str:
        name = f"add{len(self.nodes)}"
        self.nodes.append(Add(name=name, index=len(self.nodes), inputs=(a, b), output=name))
        return self._activation(self.tensors[a].shape, name)

    def pool(
        self,
        source: str,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        *,
        largest: bool = False,
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> str:
        kind, name, image = MaxPool if largest else AvgPool, f"pool{len(self.nodes)}", self.tensors[source].shape
        node = kind(
            name=name, index=len(self.nodes), inputs=(source,), output=name, kernel=Pair(*kernel), stride=Pair(*stride),
            padding=Padding(*padding),
        )  # fmt: skip
        self.nodes.append(node)
        return self._activation((1, *node.output_extent(image[1], image[2]), image[3]), name, like=source)

    def concat(self, *sources: str, axis: int = 3) -> str:
        name, shapes = f"concat{len(self.nodes)}", [self.tensors[source].shape for source in sources]
        self.nodes.append(Concat(name=name, index=len(self.nodes), inputs=sources, output=name, axis=axis))
        joined = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
        return self._activation(joined, name, like=sources[0])

    def resize(self, source: str, factor: tuple[int, int]) -> str:
        name, (_, height, width, channels) = f"resize{len(self.nodes)}", self.tensors[source].shape
        self.nodes.append(Resize(name=name, index=len(self.nodes), inputs=(source,), output=name, factor=Pair(*factor)))
        return self._activation((1, height * factor[0], width * factor[1], channels), name, like=source)

    def quantize(self, source: str, *, moved: bool = False) -> str:
        """With ``moved`` codes keep their scale and move by 128, from uint8 to int8."""
        name, tensor = f"quantize{len(self.nodes)}", self.tensors[source]
        self.nodes.append(Quantize(name=name, index=len(self.nodes), inputs=(source,), output=name))
        self._activation(tensor.shape, name)
        if moved:
            self.tensors[name] = replace(tensor, name=name, dtype="int8", zero_point=tensor.zero_point - 128)
        return name

    def softmax(self, source: str) -> str:
        name = f"softmax{len(self.nodes)}"
        self.nodes.append(Softmax(name=name, index=len(self.nodes), inputs=(source,), output=name))
        self.tensors[name] = Tensor(
            name=name, shape=self.tensors[source].shape, dtype="int8", scale=np.array([1 / 256], np.float32),
            zero_point=-128,
        )  # fmt: skip
        return name

    def flatten(self, source: str) -> str:
        name = f"flat{len(self.nodes)}"
        self.nodes.append(Reshape(name=name, index=len(self.nodes), inputs=(source,), output=name))
        return self._activation((1, self.tensors[source].size), name, like=source)

    def dense(self, source: str, filters: int) -> str:
        name = f"dense{len(self.nodes)}"
        weight, bias = self._constants(name, (filters, self.tensors[source].shape[1]))
        self.nodes.append(FullyConnected(name=name, index=len(self.nodes), inputs=(source, weight, bias), output=name))
        return self._activation((1, filters), name)

    def graph(self, *outputs: str) -> Graph:
        return Graph(name="test", tensors=self.tensors, nodes=tuple(self.nodes), inputs=(self.source,), outputs=outputs)

    def image(self) -> np.ndarray:
        tensor = self.tensors[self.source]
        limits = np.iinfo(DTYPES[tensor.dtype])
        return self.rng.integers(limits.min, limits.max + 1, tensor.shape, limits.dtype)
