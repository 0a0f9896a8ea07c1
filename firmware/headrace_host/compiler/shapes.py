"""Shapes, element types and precisions of graph nodes as the machine sees them."""

from __future__ import annotations

from headrace.config import Precision
from headrace.isa import DType
from headrace_host.compiler.fuse import MacNode
from headrace_host.compiler.tiling import ConvShape
from headrace_host.errors import CompileError
from headrace_host.models.graph import (
    NO_PADDING,
    UNIT,
    AvgPool,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Padding,
    Pair,
    Tensor,
    describe,
)


def element_type(tensor: Tensor) -> DType:
    """How elements of an activation lie in memory."""
    return {"int4": DType.I4, "uint8": DType.U8}.get(tensor.dtype, DType.I8)


def precision_of(graph: Graph, node: Node) -> Precision:
    """Operand widths of a multiplying node."""
    source, weight = (graph.tensors[name] for name in node.inputs[:2])
    if weight.dtype != "int4":
        return Precision.A8W8
    return Precision.A4W4 if source.dtype == "int4" else Precision.A8W4


def mac_shape(graph: Graph, node: MacNode) -> ConvShape:
    """The shape of a multiplying node; a fully connected one covers the whole image its input was reshaped from."""
    if not isinstance(node, FullyConnected):
        image, out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape
        return _shape(image, out, node.kernel, node.stride, node.dilation, node.padding)
    source = node.inputs[0]
    producer = graph.producer(source)
    while producer is not None and producer.operator == "Reshape":
        source = producer.inputs[0]
        producer = graph.producer(source)
    shape = graph.tensors[source].shape
    image = shape if len(shape) == 4 else (1, 1, 1, shape[-1])
    out = (1, 1, 1, graph.tensors[node.output].shape[-1])
    return _shape(image, out, Pair(image[1], image[2]), UNIT, UNIT, NO_PADDING)


def pool_shape(graph: Graph, node: AvgPool | MaxPool) -> ConvShape:
    """The shape of a pooling node."""
    image, out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape
    if node.dilation != UNIT:
        raise CompileError(f"{describe(node)}: dilated pooling has no lowering; use dilation 1")
    return _shape(image, out, node.kernel, node.stride, UNIT, node.padding)


def _shape(
    image: tuple[int, ...], out: tuple[int, ...], kernel: Pair, stride: Pair, dilation: Pair, padding: Padding
) -> ConvShape:
    return ConvShape(
        in_h=image[1],
        in_w=image[2],
        in_c=image[3],
        out_h=out[1],
        out_w=out[2],
        out_c=out[3],
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
    )
