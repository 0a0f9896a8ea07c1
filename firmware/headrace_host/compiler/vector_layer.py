"""Layers of the dataflow array alone: which lowering each operator takes, and why it runs there."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_host import quantise
from headrace_host.compiler.constants import ConstantStore
from headrace_host.compiler.elementwise import lower_elementwise
from headrace_host.compiler.fuse import VectorNode
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.pooling import PoolLayer, PoolLowering
from headrace_host.compiler.programs import add_steps, average_steps, copy_steps, maximum_steps, rescale_steps
from headrace_host.compiler.resize import lower_resize
from headrace_host.compiler.shapes import element_type, pool_shape
from headrace_host.compiler.softmax import SoftmaxLowering, exponentials
from headrace_host.compiler.vector_pass import INT8, Codes
from headrace_host.errors import CompileError
from headrace_host.models.graph import Add, AvgPool, Concat, Graph, MaxPool, Quantize, Resize, Softmax, describe
from headrace_host.rescale import rescaling

REASONS = {
    Add: "no convolution to fuse it with",
    AvgPool: "pooling",
    Concat: "inputs that could not be written in place are copied",
    MaxPool: "pooling",
    Quantize: "codes change their scale",
    Resize: "pixels are repeated",
    Softmax: "tables, sum and reciprocal in fp32",
}
"""Why each operator runs on the dataflow array."""


@dataclass(frozen=True)
class VectorLowering:
    """Emits the commands of layers that need no MAC array."""

    graph: Graph
    memory: Memory
    constants: ConstantStore

    def emit(self, node: VectorNode, sources: list[Location], output: Location, parts: list[Location]) -> None:
        """Commands of ``node``; ``parts`` are where each input of a concatenation belongs."""
        for name in (*node.inputs, node.output):
            if self.graph.tensors[name].dtype == "int4":
                raise CompileError(
                    f"{describe(node)}: tensor '{name}' is INT4, which only MAC layers take; keep it INT8"
                )
        match node:
            case Add():
                add = quantise.addition(self.graph, node)
                codes = Codes(add.zero_point, add.act_min, add.act_max)
                lower_elementwise(self.memory, self.constants, node.name, add_steps(add), sources, output, codes=codes)
            case Quantize():
                self._quantize(node, sources, output)
            case Concat():
                for source, part in zip(sources, parts, strict=True):
                    if part is not source:
                        lower_elementwise(
                            self.memory, self.constants, node.name, copy_steps(), [source], part, codes=INT8
                        )
                output.loaded = output.pixels
            case AvgPool() | MaxPool():
                self._pool(node, sources[0], output)
            case Resize():
                _, height, width, _ = self.graph.tensors[node.inputs[0]].shape
                lower_resize(
                    self.memory, self.constants, node.name, sources[0], output,
                    height=height, width=width, factor=node.factor,
                )  # fmt: skip
            case Softmax():
                self._softmax(node, sources[0], output)

    def _quantize(self, node: Quantize, sources: list[Location], output: Location) -> None:
        constants = rescaling(self.graph, node)
        kind = element_type(self.graph.tensors[node.inputs[0]])
        codes = Codes(constants.zero_point)
        steps = rescale_steps(constants)
        lower_elementwise(self.memory, self.constants, node.name, steps, sources, output, codes=codes, kind=kind)

    def _pool(self, node: AvgPool | MaxPool, source: Location, output: Location) -> None:
        limits = quantise.average_pool(node) if isinstance(node, AvgPool) else node
        layer = PoolLayer(
            name=node.name,
            steps=average_steps if isinstance(node, AvgPool) else maximum_steps,
            source=source,
            output=output,
            shape=pool_shape(self.graph, node),
            codes=Codes(0, limits.act_min, limits.act_max),
        )
        PoolLowering(layer, self.memory, self.constants).emit()

    def _softmax(self, node: Softmax, source: Location, output: Location) -> None:
        if source.view is not None and source.loaded < source.pixels:
            self.memory.load(source, source.loaded, source.pixels, source.view, source.loaded)
            source.loaded = source.pixels
        table = exponentials(self.graph.tensors[node.inputs[0]].scalar_scale, node.beta)
        SoftmaxLowering(self.memory, self.constants, node.name, source, output).emit(table)
        output.loaded = output.pixels
        if output.ddr is not None and output.view is not None:
            self.memory.store(output, 0, output.pixels, output.view, 0)
