"""The graph between importers and the compiler: quantised tensors (NHWC) and operator nodes in execution order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace_host.errors import ModelError

DTYPES = {
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int4": np.dtype(np.int8),  # codes -8..7, one an element here, two a byte in memory
    "int32": np.dtype(np.int32),
    "float32": np.dtype(np.float32),
}


class Padding(NamedTuple):
    """Rows and columns added on each side of an image; they hold the zero point."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


class Pair(NamedTuple):
    """A vertical and a horizontal extent."""

    y: int
    x: int


UNIT = Pair(1, 1)
NO_PADDING = Padding()


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupScales:
    """Scales of groups of 32 4-bit weights of a multiplying node: what the array's group scales take.

    ``sd`` [filters, groups] uint8, ``sm`` alike int8, ``kc`` [filters] 0..7. With INT8 weights, where only activation
    shifts apply, all three are None. Groups follow the packed reduction: channels must fill whole scratchpad words
    unless the kernel is 1x1.
    """

    sd: NDArray[np.uint8] | None = None
    sm: NDArray[np.int8] | None = None
    kc: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """One tensor.

    ``shape`` is NHWC for images and ``[batch, features]`` for vectors; the batch is 1. ``scale`` holds one fp32 value,
    or one an output channel (axis 0 of a weight). ``data`` is set for constants and has ``shape`` and ``dtype``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: int = 0
    data: NDArray[np.generic] | None = None
    group_scales: GroupScales | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def scalar_scale(self) -> np.float32:
        """The scale of a tensor quantised as a whole."""
        if self.scale.shape != (1,):
            raise ModelError(
                f"tensor '{self.name}': has {self.scale.size} scales where one is needed; requantise per tensor"
            )
        return np.float32(self.scale[0])


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator. ``inputs`` and ``output`` are tensor names; ``index`` is the position in the model file."""

    name: str
    index: int
    inputs: tuple[str, ...]
    output: str

    @property
    def operator(self) -> str:
        """The operator's name, for messages and tables."""
        return type(self).__name__


@dataclass(frozen=True, kw_only=True)
class Activated(Node):
    """An operator that clamps its int8 output to ``act_min..act_max`` (both inclusive)."""

    act_min: int = -128
    act_max: int = 127


@dataclass(frozen=True, kw_only=True)
class Windowed(Activated):
    """An operator that slides a window of ``kernel`` over an image."""

    kernel: Pair
    stride: Pair = UNIT
    padding: Padding = NO_PADDING
    dilation: Pair = UNIT

    def output_extent(self, height: int, width: int) -> Pair:
        """Height and width of the output for an input of ``height`` by ``width``."""
        p, k, s, d = self.padding, self.kernel, self.stride, self.dilation
        return Pair(
            (height + p.top + p.bottom - (k.y - 1) * d.y - 1) // s.y + 1,
            (width + p.left + p.right - (k.x - 1) * d.x - 1) // s.x + 1,
        )


@dataclass(frozen=True, kw_only=True)
class Conv2D(Windowed):
    """Inputs: image, weight ``[out, ky, kx, in / groups]`` int8, bias ``[out]`` int32."""

    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class DepthwiseConv(Windowed):
    """Inputs: image, weight ``[channels, ky, kx]`` int8, bias ``[channels]`` int32."""


@dataclass(frozen=True, kw_only=True)
class AvgPool(Windowed):
    """Mean over the window; padding does not count. Input and output share scale and zero point."""


@dataclass(frozen=True, kw_only=True)
class MaxPool(Windowed):
    """Maximum over the window; padding does not take part."""


@dataclass(frozen=True, kw_only=True)
class FullyConnected(Activated):
    """Inputs: vector, weight ``[out, in]`` int8, bias ``[out]`` int32."""


@dataclass(frozen=True, kw_only=True)
class Add(Activated):
    """Sum of two tensors of equal shape, each with its own scale."""


@dataclass(frozen=True, kw_only=True)
class Softmax(Node):
    """Softmax over the last axis of ``beta`` times the input."""

    beta: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Quantize(Node):
    """int8 or uint8 codes (``inputs[0]``) as int8 codes of another scale and zero point."""


@dataclass(frozen=True, kw_only=True)
class Reshape(Node):
    """The same elements in the same order with another shape."""


@dataclass(frozen=True, kw_only=True)
class Concat(Node):
    """Inputs joined along ``axis``; all share scale and zero point with the output."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Resize(Node):
    """Nearest-neighbour enlargement by whole factors: output pixel (y, x) is input pixel (y div fy, x div fx)."""

    factor: Pair


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network: nodes in an order in which every input exists before it is read."""

    name: str
    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    _producer: dict[str, Node] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._producer.update({node.output: node for node in self.nodes})
        self._validate()

    def producer(self, tensor: str) -> Node | None:
        """The node that writes ``tensor``; None for inputs and constants."""
        return self._producer.get(tensor)

    def consumers(self, tensor: str) -> Iterator[Node]:
        """The nodes that read ``tensor``, in execution order."""
        return (node for node in self.nodes if tensor in node.inputs)

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of ``node``, padding included, as frameworks count them."""
        out = self.tensors[node.output]
        if isinstance(node, Conv2D | FullyConnected):
            return out.size * (self.tensors[node.inputs[1]].size // out.shape[-1])
        if isinstance(node, DepthwiseConv):
            return out.size * node.kernel.y * node.kernel.x
        return 0

    def _validate(self) -> None:
        known = set(self.inputs) | {name for name, tensor in self.tensors.items() if tensor.data is not None}
        for tensor in self.tensors.values():
            _check_tensor(tensor)
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in known]
            if missing:
                raise ModelError(f"{describe(node)}: input '{missing[0]}' has no value; nodes are out of order")
            _check_node(self, node)
            known.add(node.output)
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"graph '{self.name}': output '{name}' is never computed")


def describe(node: Node) -> str:
    """How messages name a node."""
    return f"node {node.index} ({node.operator} '{node.name}')"


def _check_tensor(tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise ModelError(f"tensor '{tensor.name}': type {tensor.dtype} is not supported; quantise to int8")
    if any(extent < 1 for extent in tensor.shape) or tensor.size > 1 << 31:
        raise ModelError(f"tensor '{tensor.name}': shape {tensor.shape} is empty or too large")
    if not (np.isfinite(tensor.scale).all() and (tensor.scale > 0).all()):
        raise ModelError(f"tensor '{tensor.name}': scales must be positive finite numbers")
    low = {"int8": -128, "uint8": 0}.get(tensor.dtype)
    if low is not None and not low <= tensor.zero_point < low + 256:
        raise ModelError(f"tensor '{tensor.name}': zero point {tensor.zero_point} does not fit {tensor.dtype}")
    if tensor.dtype == "int4":
        extremes = (tensor.zero_point, *(() if tensor.data is None else (tensor.data.min(), tensor.data.max())))
        if not all(-8 <= int(code) <= 7 for code in extremes):
            raise ModelError(f"tensor '{tensor.name}': zero point or codes do not fit int4")
    if tensor.data is not None and (tensor.data.shape != tensor.shape or tensor.data.dtype != DTYPES[tensor.dtype]):
        raise ModelError(f"tensor '{tensor.name}': data is {tensor.data.dtype}{tensor.data.shape}, not as declared")


def _check_node(graph: Graph, node: Node) -> None:
    """Check that shapes, scales and attributes of ``node`` fit together."""
    shapes = [graph.tensors[name].shape for name in node.inputs]
    out = graph.tensors[node.output]

    def need(condition: bool, what: str) -> None:
        if not condition:
            raise ModelError(f"{describe(node)}: {what}")

    if isinstance(node, Activated):
        need(-128 <= node.act_min <= node.act_max <= 127, f"activation range {node.act_min}..{node.act_max} is empty")
    if isinstance(node, Windowed):
        need(len(shapes[0]) == 4 and len(out.shape) == 4, f"needs NHWC images, not {shapes[0]} -> {out.shape}")
        need(min(*node.kernel, *node.stride, *node.dilation) >= 1, "kernel, stride and dilation must be at least 1")
        need(min(node.padding) >= 0, "padding must not be negative")
        extent = node.output_extent(shapes[0][1], shapes[0][2])
        need(out.shape[1:3] == extent, f"output is {out.shape[1:3]}, but kernel, stride and padding give {extent}")
    if isinstance(node, Conv2D):
        channels, filters = shapes[0][3], out.shape[3]
        need(node.groups >= 1 and channels % node.groups == 0, f"{channels} channels do not divide by {node.groups}")
        weight = (filters, *node.kernel, channels // node.groups)
        need(shapes[1] == weight, f"weight is {shapes[1]}, not {weight}")
        _check_scaled(graph, node, need)
    elif isinstance(node, DepthwiseConv):
        need(shapes[1] == (shapes[0][3], *node.kernel), f"weight is {shapes[1]}; only multiplier 1 is supported")
        _check_scaled(graph, node, need)
    elif isinstance(node, FullyConnected):
        need(len(shapes[0]) == 2 and shapes[1] == (out.shape[-1], shapes[0][1]), f"weight is {shapes[1]}")
        _check_scaled(graph, node, need)
    elif isinstance(node, Add):
        need(shapes[0] == shapes[1] == out.shape, f"shapes differ ({shapes[0]} and {shapes[1]}); broadcast them first")
    elif isinstance(node, Reshape):
        need(graph.tensors[node.inputs[0]].size == out.size, f"{shapes[0]} and {out.shape} differ in size")
    elif isinstance(node, AvgPool | MaxPool):
        need(
            _alike(graph, node) and shapes[0][3] == out.shape[3],
            "input and output must share channels, scale and zero point",
        )
    elif isinstance(node, Softmax):
        scores = np.float32(1 / 256), -128
        need((out.scalar_scale, out.zero_point) == scores, "output must have scale 1/256 and zero point -128")
        need(shapes[0] == out.shape, f"{shapes[0]} and {out.shape} differ")
    elif isinstance(node, Concat):
        ends = [shape[: node.axis] + shape[node.axis + 1 :] for shape in (*shapes, out.shape)]
        joined = sum(shape[node.axis] for shape in shapes) == out.shape[node.axis]
        need(joined and ends.count(ends[0]) == len(ends), f"shapes {shapes} do not join to {out.shape}")
        need(_alike(graph, node), "inputs and output must share scale and zero point")
    elif isinstance(node, Resize):
        large = (1, shapes[0][1] * node.factor.y, shapes[0][2] * node.factor.x, shapes[0][3])
        need(out.shape == large, f"output is {out.shape}, the factors give {large}")
        need(_alike(graph, node), "input and output must share scale and zero point")
    elif isinstance(node, Quantize):
        need(shapes[0] == out.shape, f"{shapes[0]} and {out.shape} differ")


def _alike(graph: Graph, node: Node) -> bool:
    """Whether all inputs have the output's scale and zero point."""
    out = graph.tensors[node.output]
    tensors = (graph.tensors[name] for name in node.inputs)
    return all(t.zero_point == out.zero_point and np.array_equal(t.scale, out.scale) for t in tensors)


def _check_scaled(graph: Graph, node: Node, need: Callable[[bool, str], None]) -> None:
    """Check weight scales and bias of a multiplying node."""
    weight, bias = graph.tensors[node.inputs[1]], graph.tensors[node.inputs[2]]
    filters = graph.tensors[node.output].shape[-1]
    need(weight.data is not None and bias.data is not None, "weight and bias must be constants")
    need(weight.dtype in ("int8", "int4") and weight.zero_point == 0, "weights must be int8 or int4, zero point 0")
    need(weight.dtype == "int4" or graph.tensors[node.inputs[0]].dtype != "int4", "INT4 inputs need INT4 weights")
    need(weight.scale.size in (1, filters), f"has {weight.scale.size} weight scales for {filters} channels")
    need(bias.dtype == "int32" and bias.shape == (filters,), f"bias must be {filters} int32 values")
