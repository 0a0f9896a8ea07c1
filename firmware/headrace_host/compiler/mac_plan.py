"""The loop order of a MAC layer: strips of output rows, and how its weights pass through the ring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.config import Precision
from headrace.isa import DType
from headrace_host.compiler.layout import tensor_words
from headrace_host.compiler.mapping import Mapping, map_layer
from headrace_host.compiler.operands import Location, Memory, OutOfScratchpad, packed_pixels
from headrace_host.compiler.tiling import ConvShape, growing_strips, shrinking_strips, strip_rows
from headrace_host.models.graph import GroupScales
from headrace_host.quantise import AddConstants, RequantConstants

__all__ = ["MacLayer", "MacPlan", "interleave", "plan_layer"]


@dataclass(eq=False, kw_only=True)
class MacLayer:
    """One MAC operation: operands, constants and, when fused, the residual added in the epilogue.

    ``weights`` is [filters, ky, kx, channels / groups], 4-bit codes -8..7 (0..15 if unsigned) unless A8W8. Extents of
    ``shape`` count codes, those of locations bytes. ``depthwise``: one filter a channel (groups is not used then).
    ``residual_first``: the residual is operand a of the addition.
    """

    name: str
    label: int
    shape: ConvShape
    weights: NDArray[np.int8]
    requant: RequantConstants
    source: Location
    output: Location
    pad_value: int
    precision: Precision = Precision.A8W8
    act_unsigned: bool = False
    weight_unsigned: bool = False
    depthwise: bool = False
    groups: int = 1
    group_scales: GroupScales | None = None
    output_type: DType = DType.I8
    residual_type: DType = DType.I8
    residual: Location | None = None
    add: AddConstants | None = None
    residual_first: bool = False
    pooled: bool = False
    """What reads the output next is a pass of the dataflow array alone, which can begin with the first channels."""


@dataclass(frozen=True)
class MacPlan:
    """Loop order of a layer: strips of output rows, its mapping, and how weights pass through the ring."""

    strips: list[tuple[int, int]]
    mapping: Mapping
    hold: bool  # all weights stay in the ring over the strips
    replay: bool  # an n tile's weights stay over its m tiles
    cuts: tuple[int, ...] = ()  # n tiles at which a strip is cut into pieces

    @property
    def once(self) -> bool:
        """Weights are streamed once for all strips."""
        return self.hold or len(self.strips) == 1


def interleave(layer: MacLayer) -> int:
    """log2 of the pixels a row takes in turn, so that rows read different banks."""
    stride = layer.shape.stride.x
    return max(0, layer.source.shift - (stride.bit_length() - 1))


def plan_layer(layer: MacLayer, memory: Memory) -> MacPlan:
    """Pick the mode, strips that fit and a loop order for the weights.

    Raises:
        OutOfScratchpad: when not even strips of one row fit.
        CompileError: when the machine cannot run the layer.
    """
    return _Planner(layer, memory).plan()


class _Planner:
    def __init__(self, layer: MacLayer, memory: Memory) -> None:
        self._layer, self._memory, self._config = layer, memory, memory.config
        self._shape = layer.shape.normalised()
        self._mapping = map_layer(
            memory.config,
            self._shape,
            precision=layer.precision,
            fold=layer.source.packed > 1,
            interleave=interleave(layer),
            depthwise=layer.depthwise,
            groups=layer.groups,
            scales=layer.group_scales,
        )

    def plan(self) -> MacPlan:
        config, mapping, shape = self._config, self._mapping, self._shape
        replay = mapping.entries <= config.ring_entries
        hold = replay and mapping.entries * mapping.n_tiles <= config.ring_entries
        # Without replay every n tile is a piece of its own: its weights stream again for each m tile.
        cuts = mapping.cuts if replay else tuple(range(1, mapping.n_tiles))
        strips = self._strips()
        if strips is None:
            cuts = cuts or self._channel_cuts()
            strips = [(0, shape.out_h)] if cuts else self._overlapping_strips(hold)
        elif replay and (cuts or not hold) and self._resident:
            strips = [(0, shape.out_h)]  # one strip, so that weights the ring cannot keep are read once
        hold = hold and len(strips) > 1 and not cuts
        return MacPlan(strips, mapping, hold, replay, cuts)

    @property
    def _resident(self) -> bool:
        """Whether every operand has its place on chip."""
        layer = self._layer
        return all(loc is None or loc.view is not None for loc in (layer.source, layer.output, layer.residual))

    def _channel_cuts(self) -> tuple[int, ...]:
        """Where to cut the output channels so that a pooling layer runs beside the last ones; () to cut rows instead.

        Pieces share no scratchpad word. Rows are cut when the layer before must drain meanwhile.
        """
        config, layer, mapping = self._config, self._layer, self._mapping
        if not layer.pooled or layer.source.writer == layer.label - 1 or mapping.grouping is not None:
            return ()
        word = config.word_bytes * (2 if layer.output_type == DType.I4 else 1)
        unit = math.lcm(word, mapping.tile_channels, config.vector_lanes) // mapping.tile_channels
        cut = (mapping.n_tiles - 1) // unit * unit
        return (cut,) if cut else ()

    def _strips(self) -> list[tuple[int, int]] | None:
        """Strips that overlap loads, work and stores; None when input and output are on chip."""
        layer, config, shape, mapping = self._layer, self._config, self._shape, self._mapping
        tile_rows = max(1, config.rows * mapping.accs // shape.out_w)
        largest = self._largest_strip(tile_rows)
        from_ddr = layer.source.view is None or layer.source.loaded < layer.source.pixels
        if not (from_ddr or layer.output.ddr is not None):
            return None
        unit = -(-(config.rows << interleave(layer)) // shape.out_w)  # rows that fill whole row groups
        if largest == shape.out_h:
            largest = -(-largest // 4)
        if largest > tile_rows:
            largest -= largest % tile_rows
        elif largest > unit:
            largest -= largest % unit
        if from_ddr and shape.kernel.y > shape.stride.y:
            largest = max(unit, 2 * largest // 3)  # a window of three strips slides, see `Source`
            largest -= largest % unit
        drain = mapping.tile_channels // config.cols * config.rows * config.acc_beats
        compute = max(mapping.cycles, drain) * mapping.n_tiles * shape.out_w / config.rows
        load = shape.stride.y * shape.in_w * layer.source.channels / layer.source.packed / config.axi_bytes
        weights = mapping.entries * mapping.n_tiles * mapping.entry_bytes // config.axi_bytes
        growth = [largest]
        if from_ddr:
            # The smallest strip whose work covers the weights and a next strip of its size, a quarter tile at least.
            first = max(1, -(-tile_rows // 4), math.ceil(weights / (compute - load)) if compute > load else 1)
            first += -first % unit
            growth = growing_strips(first=first, largest=largest, compute=compute, load=load, busy=weights, unit=unit)
        tail: list[int] = []
        if layer.output.ddr is not None:
            last = max(1, min(tile_rows // 8, largest))
            store = shape.out_w * layer.output.channels / config.axi_bytes
            tail = shrinking_strips(last=last, largest=largest, compute=compute, store=store, unit=unit)
        return strip_rows(shape.out_h, growth, tail, unit)

    def _largest_strip(self, tile_rows: int) -> int:
        """Most output rows of which two strips fit beside what is resident."""
        rows = self._shape.out_h
        if not self._fits(rows):
            self._memory.free_retired()
        while not self._fits(rows):
            if rows == 1:
                raise OutOfScratchpad(self._layer.name)
            rows = -(-rows // 2) if rows > 2 * tile_rows else rows - 1
        return rows

    def _overlapping_strips(self, hold: bool) -> list[tuple[int, int]]:
        """Two strips for a layer on chip, so that work goes on while the last tiles of the layer before drain.

        The first reads only what the previous layer wrote before its last command; the second is small, so that the
        first strip of the next layer can be large.
        """
        shape, source = self._shape, self._layer.source
        split = shape.out_h - -(-shape.out_h // 16)
        if source.writer == self._layer.label - 1:
            rows = source.settled // shape.in_w
            while split and shape.input_rows(0, split)[1] > rows:
                split -= 1
        if not hold or split < 1:
            return [(0, shape.out_h)]
        return [(0, split), (split, shape.out_h)]

    def _fits(self, rows: int) -> bool:
        """Whether two input and two output strips of ``rows`` output rows fit beside what is resident."""
        layer, shape, pad = self._layer, self._shape, self._memory.scratchpad
        near = pad.sub_bank(layer.source.region) if layer.source.region is not None else 0
        operands = [  # as the sink and the sources will ask for them
            (layer.output, rows * shape.out_w, 1 - near),
            (layer.residual, rows * shape.out_w, 1 - near),
            (layer.source, shape.strip_inputs(rows) * shape.in_w, near),
        ]
        requests = []
        for location, pixels, bank in operands:
            if location is not None and location.view is None:
                packed = packed_pixels(location, pixels)
                words = tensor_words(self._config, packed, location.channels, location.shift)
                requests += 2 * [(words, bank)]
        return pad.holds(requests)
