"""The compiler's driver: a graph and a machine become a `CompiledModel`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace.isa import COMMAND_BYTES, DType
from headrace_host import quantise
from headrace_host.allocate import DdrAllocator, ScratchpadAllocator
from headrace_host.compiler.constants import ConstantStore, DdrImage
from headrace_host.compiler.encode import encode_command
from headrace_host.compiler.fuse import Unit, Work, plan_work
from headrace_host.compiler.mac_layer import MacLayer, MacLowering, OutOfScratchpad
from headrace_host.compiler.model import Binding, CompiledModel, Layer, Window
from headrace_host.compiler.operands import Location, Memory
from headrace_host.compiler.packing import FOLD_PIXEL_BYTES, element_bytes, entry_bytes, fold_taps
from headrace_host.compiler.programs import Step, add_steps, average_steps, maximum_steps
from headrace_host.compiler.stream import DDR_GRANULE, Planned, Recorder, TokenAssigner, schedule
from headrace_host.compiler.tiling import ConvShape
from headrace_host.compiler.vector_layer import VectorLayer, VectorLowering
from headrace_host.errors import CompileError
from headrace_host.models.graph import (
    NO_PADDING,
    UNIT,
    Add,
    AvgPool,
    Conv2D,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Pair,
    Tensor,
    describe,
)

PAGE = 4096
END_VALUE = 0x48445243
DDR_LIMIT = 1 << 40


def compile_graph(graph: Graph, config: NpuConfig, *, ddr_base: int = 0) -> CompiledModel:
    """Compile ``graph`` for ``config``; everything is placed in DDR from ``ddr_base`` (a page) upwards.

    Raises `CompileError` naming the node that cannot run and why.
    """
    work = plan_work(graph)
    spilled: set[str] = set()
    while True:
        attempt = _Attempt(graph, config, work, spilled, ddr_base)
        try:
            return attempt.compile()
        except OutOfScratchpad as error:
            victim = attempt.largest_resident()
            if victim is None:
                raise CompileError(
                    f"layer '{error}' does not fit the scratchpad of machine '{config.name}' "
                    f"({config.spad_bytes} bytes); choose a larger machine"
                ) from error
            spilled.add(victim)


@dataclass(frozen=True)
class _Info:
    """What is known of a layer before its commands have their place."""

    node: Node
    operator: str
    macs: int
    runs_on: str
    reason: str


class _Attempt:
    """One compilation with a given set of tensors kept in DDR."""

    def __init__(self, graph: Graph, config: NpuConfig, work: Work, spilled: set[str], ddr_base: int) -> None:
        self._graph, self._config, self._work, self._spilled = graph, config, work, spilled
        self._base = ddr_base
        self._recorder = Recorder()
        self._memory = Memory(config, self._recorder, ScratchpadAllocator(config), ddr_base)
        self._locations: dict[str, Location] = {}
        # Activations first: the sum of all tensors bounds their area, so that constants can follow.
        bound = sum(_ddr_size(config, tensor) + DDR_GRANULE for tensor in graph.tensors.values() if tensor.data is None)
        self._activations = DdrAllocator(ddr_base, ddr_base + -(-bound // PAGE) * PAGE)
        self._image = DdrImage(DdrAllocator(self._activations.limit, DDR_LIMIT))
        self._constants = ConstantStore(config, self._recorder, self._image)
        self._infos: list[_Info] = []

    def largest_resident(self) -> str | None:
        """The largest tensor that occupies the scratchpad and could live in DDR instead."""
        resident = [loc for loc in self._locations.values() if loc.view is not None and loc.name not in self._spilled]
        return max(resident, key=lambda loc: loc.pixels * loc.channels).name if resident else None

    def compile(self) -> CompiledModel:
        graph, work = self._graph, self._work
        readers: dict[str, int] = {}
        for unit in work.units:
            for name in work.activations(graph, unit):
                readers[name] = readers.get(name, 0) + 1
        inputs = [self._input(name) for name in graph.inputs]
        for label, unit in enumerate(work.units):
            self._memory.label = label
            self._lower(label, unit)
            # What this layer read last stays for one more layer, so that the next one need not wait to overwrite it.
            self._memory.free_retired()
            for name in work.activations(graph, unit):
                readers[name] -= 1
                if not readers[name]:
                    self._memory.retired.append(self._locations[name])
        return self._finish(inputs, [self._output(name) for name in graph.outputs])

    def _input(self, name: str) -> Binding:
        """Place a network input in DDR, packed for folding when every reader folds."""
        tensor, config = self._graph.tensors[name], self._config
        location = self._location(name)
        pixel_bytes = location.channels
        users = [unit.node for unit in self._work.units if name in self._work.activations(self._graph, unit)]
        whole = tensor.dtype == "int8" and bool(users)
        if whole and all(isinstance(n, Conv2D) and _conv_shape(self._graph, n).folds(config) for n in users):
            pixel_bytes, location.packed = FOLD_PIXEL_BYTES, fold_taps(config)
            location.pixels, location.channels = -(-location.pixels // location.packed), config.word_bytes
            location.shift = 0
        location.ddr = self._activations.allocate(location.pixels * location.channels, name)
        return Binding(name=name, address=location.ddr, shape=tensor.shape, pixel_bytes=pixel_bytes, dtype=tensor.dtype)

    def _output(self, name: str) -> Binding:
        """The binding of a network output, or of what the host computes it from."""
        host = {node.output: node.inputs[0] for node in self._work.host}
        name = host.get(name, name)
        location = self._locations[self._work.resolve(name)]
        tensor = self._graph.tensors[name]
        assert location.ddr is not None
        return Binding(
            name=name,
            address=location.ddr,
            shape=tensor.shape,
            pixel_bytes=element_bytes(_element(tensor), tensor.shape[-1]),
            dtype=tensor.dtype,
        )

    def _location(self, name: str) -> Location:
        """The location of a tensor, created at first use."""
        name = self._work.resolve(name)
        if name not in self._locations:
            tensor = self._graph.tensors[name]
            channels = tensor.shape[-1]
            width = element_bytes(_element(tensor), channels)
            self._locations[name] = Location(name, tensor.size // channels, width, self._shift(name))
        return self._locations[name]

    def _shift(self, name: str) -> int:
        """log2 of the pixels that share a bank: the largest power-of-two stride of a convolution that reads it."""
        strides = [
            unit.node.stride.x
            for unit in self._work.units
            if isinstance(unit.node, Conv2D) and self._work.resolve(unit.node.inputs[0]) == name
        ]
        return max([s.bit_length() - 1 for s in strides if s in (2, 4, 8) and s <= self._config.accs], default=0)

    def _open_output(self, name: str, near: Location) -> Location:
        """Give the output of a layer a place: the scratchpad if it has room, DDR if it is needed there."""
        location = self._location(name)
        needed = {self._work.resolve(n) for n in self._graph.outputs}
        needed |= {self._work.resolve(node.inputs[0]) for node in self._work.host}
        bank = self._memory.scratchpad.sub_bank(near.region) if near.region is not None else 0
        resident = location.name not in self._spilled and self._memory.place(location, prefer=1 - bank)
        if location.name in needed or not resident:
            location.ddr = self._activations.allocate(location.pixels * location.channels, location.name)
        return location

    def _bring(self, location: Location) -> None:
        """Reserve scratchpad for all of a tensor that is in DDR only, if there is room."""
        if location.view is None and location.name not in self._spilled:
            location.loaded = 0
            self._memory.place(location, prefer=0)

    def _lower(self, label: int, unit: Unit) -> None:
        graph, node = self._graph, unit.node
        names = self._work.activations(graph, unit)
        for name in names:
            self._bring(self._locations[name])
        output = self._open_output(unit.output, self._locations[names[0]])
        if isinstance(node, Conv2D | FullyConnected):
            layer = self._mac_layer(label, unit, node, output)
            MacLowering(layer, self._memory, self._constants, self._image).emit()
            where, why = "MAC array", "residual added in the epilogue" if unit.add else "requantised in the epilogue"
        else:
            self._vector(label, node, output)
            where, why = "dataflow array", "no convolution to fuse it with" if isinstance(node, Add) else "pooling"
        operator = node.operator + ("+Add" if unit.add else "")
        self._infos.append(_Info(node, operator, graph.macs(node), where, why))

    def _mac_layer(self, label: int, unit: Unit, node: Conv2D | FullyConnected, output: Location) -> MacLayer:
        graph = self._graph
        shape = _conv_shape(graph, node)
        data = graph.tensors[node.inputs[1]].data
        assert data is not None
        weights = data.astype(np.int8).reshape(shape.out_c, shape.kernel.y, shape.kernel.x, shape.in_c)
        layer = MacLayer(
            name=node.name,
            label=label,
            shape=shape,
            weights=weights,
            requant=quantise.requantisation(graph, node),
            source=self._location(node.inputs[0]),
            output=output,
            pad_value=graph.tensors[node.inputs[0]].zero_point,
            pooled=self._pooled(unit),
            precision=_precision(graph, node),
            group_scales=graph.tensors[node.inputs[1]].group_scales,
            output_type=_element(graph.tensors[unit.output]),
        )
        if unit.add is None:
            return layer
        first = unit.add.inputs[0] != node.output
        residual = self._location(unit.add.inputs[0] if first else unit.add.inputs[1])
        kind = _element(graph.tensors[residual.name])
        add = quantise.addition(graph, unit.add)
        return replace(layer, residual=residual, residual_type=kind, add=add, residual_first=first)

    def _pooled(self, unit: Unit) -> bool:
        """Whether the unit that runs next pools this one's output."""
        units = self._work.units
        following = units.index(unit) + 1
        if following == len(units) or not isinstance(units[following].node, AvgPool | MaxPool):
            return False
        return self._work.resolve(unit.output) in self._work.activations(self._graph, units[following])

    def _vector(self, label: int, node: Node, output: Location) -> None:
        sources = [self._location(name) for name in node.inputs]
        for location in (*sources, output):
            if location.view is None:
                raise OutOfScratchpad(node.name)
        for location in sources:
            self._complete(location)
        steps, zero_point, low, high = _vector_steps(self._graph, node)
        layer = VectorLayer(
            name=node.name,
            label=label,
            steps=steps,
            source=sources[0],
            output=output,
            shape=_pool_shape(self._graph, node),
            zero_point=zero_point,
            act_min=low,
            act_max=high,
            second=sources[1] if len(sources) == 2 else None,
        )
        VectorLowering(layer, self._memory, self._constants).emit()
        if output.ddr is not None and output.view is not None:
            self._memory.store(output, 0, output.pixels, output.view, 0)

    def _complete(self, location: Location) -> None:
        """Load what of a resident tensor is not there yet."""
        if location.view is not None and location.loaded < location.pixels:
            self._memory.load(location, location.loaded, location.pixels, location.view, location.loaded)
            location.loaded = location.pixels

    def _finish(self, inputs: list[Binding], outputs: list[Binding]) -> CompiledModel:
        config = self._config
        commands = schedule(self._recorder.commands)
        commands.append(Planned("END", len(self._infos), (), {"value": END_VALUE}))
        granules = (self._activations.limit - self._base) // DDR_GRANULE
        values = TokenAssigner(config, granules).assign(commands)
        ring = b"".join(encode_command(config, c.name, v) for c, v in zip(commands, values, strict=True))
        log2 = max(0, (len(commands) - 1).bit_length())
        self._image.allocator.align_page()
        ring_address = self._image.allocator.allocate(COMMAND_BYTES << log2, "command ring")
        end = self._image.allocator.align_page()
        middle = self._activations.limit
        return CompiledModel(
            name=self._graph.name,
            config=config,
            ring=ring,
            ring_address=ring_address,
            ring_log2=log2,
            count=len(commands),
            segments=tuple(self._image.segments),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            layers=self._layers(commands),
            windows=(
                Window(start=self._base, end=middle, read=True, write=True),
                Window(start=middle, end=end, read=True, write=False),
            ),
            ddr_base=self._base,
            ddr_end=end,
            end_value=END_VALUE,
            host_nodes=tuple(node.name for node in self._work.host),
        )

    def _layers(self, commands: list[Planned]) -> tuple[Layer, ...]:
        layers = []
        for label, info in enumerate(self._infos):
            indices = [i for i, command in enumerate(commands) if command.label == label]
            read = sum(_read_bytes(self._config, commands[i]) for i in indices)
            written = sum(_walk_bytes(commands[i].values) for i in indices if commands[i].name == "STORE")
            precision = _precision(self._graph, info.node).name if info.macs else "int8"
            layers.append(
                Layer(
                    name=info.node.name,
                    operator=info.operator,
                    precision=precision,
                    macs=info.macs,
                    runs_on=info.runs_on,
                    reason=info.reason,
                    commands=tuple(indices),
                    read_bytes=read,
                    write_bytes=written,
                )
            )
        for node in self._work.host:
            why = "the machine delivers logits; softmax keeps their order"
            layers.append(
                Layer(name=node.name, operator="Softmax", precision="fp32", macs=0, runs_on="host", reason=why)
            )
        return tuple(layers)


def _element(tensor: Tensor) -> DType:
    """How elements of an activation lie in memory."""
    return DType.I4 if tensor.dtype == "int4" else DType.I8


def _precision(graph: Graph, node: Node) -> Precision:
    """Operand widths of a multiplying node."""
    source, weight = (graph.tensors[name] for name in node.inputs[:2])
    if weight.dtype != "int4":
        return Precision.A8W8
    return Precision.A4W4 if source.dtype == "int4" else Precision.A8W4


def _walk_bytes(values: dict[str, int]) -> int:
    return values["n0"] * values.get("n1", 1) * values.get("n2", 1) * values.get("n3", 1)


def _read_bytes(config: NpuConfig, command: Planned) -> int:
    if command.name == "LOAD":
        return _walk_bytes(command.values)
    if command.name == "WEIGHT":
        size = entry_bytes(config, scales=bool(command.values.get("scales", 0)))
        return command.values["entries"] * command.values.get("repeat", 1) * size
    return 0


def _ddr_size(config: NpuConfig, tensor: Tensor) -> int:
    """Bytes a tensor may need in DDR, packed for folding included."""
    return max(tensor.size, tensor.size // tensor.shape[-1] * FOLD_PIXEL_BYTES + config.word_bytes)


def _conv_shape(graph: Graph, node: Conv2D | FullyConnected) -> ConvShape:
    """The shape of a multiplying node; a fully connected one covers the whole image its input was reshaped from."""
    if isinstance(node, Conv2D):
        if node.groups != 1:
            raise CompileError(f"{describe(node)}: grouped convolution (groups={node.groups}) has no lowering")
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


def _pool_shape(graph: Graph, node: Node) -> ConvShape:
    image, out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape
    if isinstance(node, AvgPool | MaxPool):
        return _shape(image, out, node.kernel, node.stride, UNIT, node.padding)
    flat = (1, 1, 1, image[-1])  # an addition works on pixels, whatever image they form
    return _shape(flat, flat, UNIT, UNIT, UNIT, NO_PADDING)


def _shape(image: tuple[int, ...], out: tuple[int, ...], *rest: tuple[int, ...]) -> ConvShape:
    kernel, stride, dilation, padding = rest
    return ConvShape(
        in_h=image[1],
        in_w=image[2],
        in_c=image[3],
        out_h=out[1],
        out_w=out[2],
        out_c=out[3],
        kernel=Pair(*kernel),
        stride=Pair(*stride),
        dilation=Pair(*dilation),
        padding=type(NO_PADDING)(*padding),
    )


def _vector_steps(graph: Graph, node: Node) -> tuple[list[Step], int, int, int]:
    """Program, zero point and clamp of a node that runs on the dataflow array alone."""
    if isinstance(node, Add):
        constants = quantise.addition(graph, node)
        return add_steps(constants), constants.zero_point, constants.act_min, constants.act_max
    if isinstance(node, AvgPool):
        return average_steps(quantise.average_pool(node)), 0, node.act_min, node.act_max
    if isinstance(node, MaxPool) and not any(node.padding):
        return maximum_steps(node.kernel.y * node.kernel.x), 0, node.act_min, node.act_max
    raise CompileError(f"{describe(node)}: padded pooling has no lowering; use VALID padding")
