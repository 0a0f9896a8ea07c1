"""The compiler's driver: a graph and a machine become a `CompiledModel`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import COMMAND_BYTES
from headrace_host import quantise
from headrace_host.allocate import DdrAllocator, ScratchpadAllocator
from headrace_host.compiler.constants import ConstantStore, DdrImage
from headrace_host.compiler.encode import encode_command
from headrace_host.compiler.fuse import MacNode, Unit, VectorNode, Work, absorb_unsigned, plan_work
from headrace_host.compiler.mac_layer import MacLayer, MacLowering
from headrace_host.compiler.model import Binding, CompiledModel, Layer, Window
from headrace_host.compiler.operands import Location, Memory, OutOfScratchpad
from headrace_host.compiler.packing import FOLD_PIXEL_BYTES, element_bytes, entry_bytes, fold_taps
from headrace_host.compiler.shapes import element_type, mac_shape, precision_of
from headrace_host.compiler.stream import DDR_GRANULE, Planned, Recorder, TokenAssigner, schedule
from headrace_host.compiler.vector_layer import REASONS, VectorLowering
from headrace_host.errors import CompileError
from headrace_host.models.graph import (
    AvgPool,
    Concat,
    Conv2D,
    DepthwiseConv,
    Graph,
    MaxPool,
    Node,
    Tensor,
)

PAGE = 4096
END_VALUE = 0x48445243
DDR_LIMIT = 1 << 40


def compile_graph(graph: Graph, config: NpuConfig, *, ddr_base: int = 0) -> CompiledModel:
    """Compile ``graph`` for ``config``; everything is placed in DDR from ``ddr_base`` (a page) upwards.

    Raises `CompileError` naming the node that cannot run and why.
    """
    graph = absorb_unsigned(graph)
    work = plan_work(graph, config.word_bytes)
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
        resident = [loc for loc in self._locations.values() if loc.region is not None and loc.name not in self._spilled]
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
        if users and all(isinstance(node, Conv2D) and self._folds(node) for node in users):
            pixel_bytes, location.packed = FOLD_PIXEL_BYTES, fold_taps(config)
            location.pixels, location.channels = -(-location.pixels // location.packed), config.word_bytes
            location.shift = 0
        location.ddr = self._activations.allocate(location.pixels * location.channels, name)
        return Binding(name=name, address=location.ddr, shape=tensor.shape, pixel_bytes=pixel_bytes, dtype=tensor.dtype)

    def _folds(self, node: Conv2D) -> bool:
        """Whether a convolution reads its input packed."""
        image = self._graph.tensors[node.inputs[0]]
        return image.dtype != "int4" and node.groups == 1 and mac_shape(self._graph, node).folds(self._config)

    def _output(self, name: str) -> Binding:
        """The binding of a network output."""
        location = self._locations[self._work.resolve(name)]
        tensor = self._graph.tensors[name]
        assert location.ddr is not None
        return Binding(
            name=name,
            address=location.ddr,
            shape=tensor.shape,
            pixel_bytes=element_bytes(element_type(tensor), tensor.shape[-1]),
            dtype=tensor.dtype,
        )

    def _location(self, name: str) -> Location:
        """The location of a tensor, created at first use."""
        name = self._work.resolve(name)
        if name not in self._locations:
            tensor = self._graph.tensors[name]
            channels = tensor.shape[-1]
            width = element_bytes(element_type(tensor), channels)
            self._locations[name] = Location(name, tensor.size // channels, width, self._shift(name))
        return self._locations[name]

    def _shift(self, name: str) -> int:
        """log2 of the pixels that share a bank: the largest power-of-two stride of a convolution that reads it."""
        strides = [
            unit.node.stride.x
            for unit in self._work.units
            if isinstance(unit.node, Conv2D | DepthwiseConv) and self._work.resolve(unit.node.inputs[0]) == name
        ]
        return max([s.bit_length() - 1 for s in strides if s in (2, 4, 8) and s <= self._config.accs], default=0)

    def _open_output(self, name: str, near: Location) -> Location:
        """Give the output of a layer a place: the scratchpad if it has room, DDR if it is needed there.

        Part of a concatenation: a place in that.
        """
        location = self._location(name)
        if location.view is not None or location.ddr is not None:
            return location  # a concatenation, opened with its first part
        if location.name in self._work.parts:
            whole, channel = self._work.parts[location.name]
            return self._part(location, self._open_output(whole, near), channel)
        needed = {self._work.resolve(n) for n in self._graph.outputs}
        bank = self._memory.scratchpad.sub_bank(near.region) if near.region is not None else 0
        resident = location.name not in self._spilled and self._memory.place(location, prefer=1 - bank)
        if location.name in needed or not resident:
            location.ddr = self._activations.allocate(location.pixels * location.channels, location.name)
        return location

    def _part(self, part: Location, whole: Location, channel: int) -> Location:
        """Make ``part`` the channels of ``whole`` from ``channel`` on."""
        part.shift, part.pitch = whole.shift, whole.channels
        part.view = None if whole.view is None else whole.view.part(channel, part.channels)
        part.ddr = None if whole.ddr is None else whole.ddr + channel
        return part

    def _parts(self, node: Concat, output: Location) -> list[Location]:
        """Where each input of a concatenation belongs: its own location when it is there already."""
        parts, channel = [], 0
        for name in node.inputs:
            own = self._location(name)
            if self._work.parts.get(name) == (node.output, channel):
                parts.append(own)
            else:
                parts.append(self._part(Location(name, own.pixels, own.channels, 0), output, channel))
            channel += own.channels
        return parts

    def _bring(self, location: Location) -> None:
        """Reserve scratchpad for all of a tensor that is in DDR only, if there is room."""
        if location.view is None and not location.pitch and location.name not in self._spilled:
            location.loaded = 0
            self._memory.place(location, prefer=0)

    def _lower(self, label: int, unit: Unit) -> None:
        graph, node = self._graph, unit.node
        names = self._work.activations(graph, unit)
        for name in names:
            self._bring(self._locations[name])
        output = self._open_output(unit.output, self._locations[names[0]])
        if isinstance(node, MacNode):
            layer = self._mac_layer(label, unit, node, output)
            MacLowering(layer, self._memory, self._constants, self._image).emit()
            where, why = "MAC array", "residual added in the epilogue" if unit.add else "requantised in the epilogue"
        else:
            assert isinstance(node, VectorNode)
            sources = [self._location(name) for name in node.inputs]
            parts = self._parts(node, output) if isinstance(node, Concat) else []
            VectorLowering(graph, self._memory, self._constants).emit(node, sources, output, parts)
            where, why = "dataflow array", REASONS[type(node)]
            if parts and all(part is source for part, source in zip(parts, sources, strict=True)):
                where, why = "placement", "its inputs are written where they belong"
        operator = node.operator + ("+Add" if unit.add else "")
        self._infos.append(_Info(node, operator, graph.macs(node), where, why))

    def _mac_layer(self, label: int, unit: Unit, node: MacNode, output: Location) -> MacLayer:
        graph = self._graph
        shape, source = mac_shape(graph, node), graph.tensors[node.inputs[0]]
        data = graph.tensors[node.inputs[1]].data
        assert data is not None
        layer = MacLayer(
            name=node.name,
            label=label,
            shape=shape,
            weights=data.astype(np.int8).reshape(shape.out_c, shape.kernel.y, shape.kernel.x, -1),
            requant=quantise.requantisation(graph, node),
            source=self._location(node.inputs[0]),
            output=output,
            pad_value=source.zero_point,
            pooled=self._pooled(unit),
            precision=precision_of(graph, node),
            act_unsigned=source.dtype == "uint8",
            depthwise=isinstance(node, DepthwiseConv),
            groups=node.groups if isinstance(node, Conv2D) else 1,
            group_scales=graph.tensors[node.inputs[1]].group_scales,
            output_type=element_type(graph.tensors[unit.output]),
        )
        if unit.add is None:
            return layer
        first = unit.add.inputs[0] != node.output
        residual = self._location(unit.add.inputs[0] if first else unit.add.inputs[1])
        kind = element_type(graph.tensors[residual.name])
        add = quantise.addition(graph, unit.add)
        return replace(layer, residual=residual, residual_type=kind, add=add, residual_first=first)

    def _pooled(self, unit: Unit) -> bool:
        """Whether the unit that runs next pools this one's output."""
        units = self._work.units
        following = units.index(unit) + 1
        if following == len(units) or not isinstance(units[following].node, AvgPool | MaxPool):
            return False
        return self._work.resolve(unit.output) in self._work.activations(self._graph, units[following])

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
        )

    def _layers(self, commands: list[Planned]) -> tuple[Layer, ...]:
        layers = []
        for label, info in enumerate(self._infos):
            indices = [i for i, command in enumerate(commands) if command.label == label]
            read = sum(_read_bytes(self._config, commands[i]) for i in indices)
            written = sum(_walk_bytes(commands[i].values) for i in indices if commands[i].name == "STORE")
            precision = precision_of(self._graph, info.node).name if info.macs else "int8"
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
        return tuple(layers)


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
