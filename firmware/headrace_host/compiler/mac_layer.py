"""Lowering of convolutions, fully connected layers and matrix products with their epilogue."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace_host.compiler.constants import ConstantStore, DdrImage, Installed, Vectors
from headrace_host.compiler.layout import View, tensor_words
from headrace_host.compiler.operands import Location, Memory, Sink, Source, packed_pixels
from headrace_host.compiler.packing import entry_bytes, pack_weights
from headrace_host.compiler.programs import place, requantise_steps
from headrace_host.compiler.stream import Planned
from headrace_host.compiler.tiling import ConvShape, Tiles, cut_tiles, growing_strips, strip_rows
from headrace_host.quantise import AddConstants, RequantConstants


class OutOfScratchpad(Exception):
    """A layer found no room for its strip buffers; the compiler then moves a tensor to DDR and starts again."""


@dataclass(eq=False, kw_only=True)
class MacLayer:
    """One MAC operation: operands, constants and, when fused, the residual added in the epilogue.

    ``weights`` is [filters, ky, kx, channels]. ``residual_first``: the residual is operand a of the addition.
    """

    name: str
    label: int
    shape: ConvShape
    weights: NDArray[np.int8]
    requant: RequantConstants
    source: Location
    output: Location
    pad_value: int
    residual: Location | None = None
    add: AddConstants | None = None
    residual_first: bool = False
    pooled: bool = False
    """What reads the output next is a pass of the dataflow array alone, which can begin with the first channels."""


@dataclass(frozen=True)
class _Plan:
    """Loop order of a layer: strips of output rows, entries of an n tile, and how weights pass through the ring."""

    strips: list[tuple[int, int]]
    entries: int
    n_tiles: int
    hold: bool  # all weights stay in the ring over the strips
    replay: bool  # an n tile's weights stay over its m tiles
    cuts: tuple[int, ...] = ()  # n tiles at which a strip is cut into pieces

    @property
    def once(self) -> bool:
        """Weights are streamed once for all strips."""
        return self.hold or len(self.strips) == 1


@dataclass(frozen=True)
class _Piece:
    """What one MAC command and its EPILOGUE compute: output rows ``strip`` by n tiles ``[first_tile, end_tile)``."""

    strip: tuple[int, int]
    pixels: int
    tiles: Tiles
    first_tile: int
    end_tile: int


class MacLowering:
    """Emits the commands of one layer."""

    def __init__(self, layer: MacLayer, memory: Memory, constants: ConstantStore, image: DdrImage) -> None:
        self._layer, self._memory, self._config = layer, memory, memory.config
        self._shape = layer.shape.normalised()
        self._fold = layer.source.packed > 1
        self._constants = constants
        self._plan = self._choose()
        self._weights_at = image.place(pack_weights(self._config, layer.weights, fold=self._fold), layer.name)

    def emit(self) -> None:
        """Strips in order: fetch the input, compute, drain, send the output on."""
        plan, layer, memory = self._plan, self._layer, self._memory
        source, residual, sink = self._operands(plan)
        commands = len(memory.recorder.commands)
        fetched = self._fetch(plan.strips[0], source, residual)
        loads = memory.recorder.commands[commands:]
        if plan.replay and plan.once:
            self._stream_weights(plan, behind=loads)
        installed = self._install()
        for position, strip in enumerate(plan.strips):
            here, hold = fetched, False
            # Loads of the next strip go before this strip's work in the ring, so that they run beside it.
            if position + 1 < len(plan.strips):
                fetched, hold = self._fetch(plan.strips[position + 1], source, residual), plan.hold
            if plan.replay and not plan.once:
                self._stream_weights(plan)
            first, last = strip[0] * self._shape.out_w, strip[1] * self._shape.out_w
            view, at = sink.open(first)
            tiles = cut_tiles(self._config, last - first, self._interleave())
            for first_tile, end_tile in itertools.pairwise((0, *plan.cuts, plan.n_tiles)):
                if not plan.replay:
                    self._stream_tile(plan, first_tile, tiles.m_tiles)
                piece = _Piece(strip, last - first, tiles, first_tile, end_tile)
                self._emit_mac(plan, piece, here[0], hold=hold)
                self._emit_epilogue(piece, here[1], (view, at), installed)
            sink.close(first, last, view, at)
        memory.release_buffers()
        output = layer.output
        output.loaded, output.writer = output.pixels, layer.label
        output.settled = plan.strips[-1][0] * self._shape.out_w
        output.settled_channels = plan.cuts[-1] * self._config.cols if plan.cuts and plan.replay else 0

    def _install(self) -> Installed:
        layer = self._layer
        program = place(self._config, requantise_steps(layer.requant, layer.add, flip=layer.residual_first))
        vectors: Vectors = {"bias": layer.requant.bias, "scale": layer.requant.scale}
        return self._constants.install(program, vectors, layer.label)

    def _choose(self) -> _Plan:
        """Pick strips that fit and a loop order for the weights."""
        config, shape = self._config, self._shape
        entries = shape.entries(config, fold=self._fold)
        n_tiles = -(-shape.out_c // config.cols)
        replay = entries <= config.ring_entries
        hold = replay and entries * n_tiles <= config.ring_entries
        strips = self._strips(entries, n_tiles)
        # Without replay every n tile is a piece of its own, see `_stream_tile`.
        cuts: tuple[int, ...] = () if replay else tuple(range(1, n_tiles))
        if strips is None:
            cuts = cuts or self._channel_cuts(n_tiles)
            strips = [(0, shape.out_h)] if cuts else self._overlapping_strips(hold)
        return _Plan(strips, entries, n_tiles, hold and len(strips) > 1, replay, cuts)

    def _channel_cuts(self, n_tiles: int) -> tuple[int, ...]:
        """Where to cut the output channels so that a pooling layer runs beside the last ones; () to cut rows instead.

        Pieces share no scratchpad word. Rows are cut when the layer before must drain meanwhile.
        """
        config, layer = self._config, self._layer
        if not layer.pooled or layer.source.writer == layer.label - 1:
            return ()
        unit = math.lcm(config.word_bytes, config.cols, config.vector_lanes) // config.cols
        cut = (n_tiles - 1) // unit * unit
        return (cut,) if cut else ()

    def _strips(self, entries: int, n_tiles: int) -> list[tuple[int, int]] | None:
        """Strips that overlap loads, work and stores; None when input and output are on chip."""
        layer, config, shape = self._layer, self._config, self._shape
        tile_rows = max(1, config.rows * config.accs // shape.out_w)
        largest = self._largest_strip(tile_rows)
        from_ddr = layer.source.view is None or layer.source.loaded < layer.source.pixels
        if not (from_ddr or layer.output.ddr is not None):
            return None
        if largest == shape.out_h:
            largest = -(-largest // 4)
        if largest > tile_rows:
            largest -= largest % tile_rows
        compute = 2 * entries * n_tiles * shape.out_w / config.rows
        load = shape.stride.y * shape.in_w * layer.source.channels / layer.source.packed / config.axi_bytes
        weights = entries * n_tiles * config.entry_beats
        growth = [largest]
        if from_ddr:
            # The smallest strip whose work covers the weights and a next strip of its size, half a tile at the least.
            first = max(1, -(-tile_rows // 2), math.ceil(weights / (compute - load)) if compute > load else 1)
            unit = -(-(config.rows << self._interleave()) // shape.out_w)
            growth = growing_strips(first=first, largest=largest, compute=compute, load=load, busy=weights, unit=unit)
        last = max(1, min(tile_rows // 4, largest)) if layer.output.ddr is not None else 0
        return strip_rows(shape.out_h, growth, last)

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
        layer, config, shape = self._layer, self._config, self._shape
        pad = self._memory.scratchpad
        needs = []
        if layer.source.view is None:
            needs += 2 * [self._strip_words(layer.source, self._input_rows(rows) * shape.in_w)]
        if layer.residual is not None and layer.residual.view is None:
            needs += 2 * [self._strip_words(layer.residual, rows * shape.out_w)]
        if layer.output.view is None:
            needs += 2 * [self._strip_words(layer.output, rows * shape.out_w)]
        free = sorted((pad.largest(0), pad.largest(1)), reverse=True)
        for need in sorted(needs, reverse=True):
            free.sort(reverse=True)
            if free[0] < need:
                return False
            free[0] -= need
        return config.bank_words > 0

    def _strip_words(self, location: Location, pixels: int) -> int:
        return tensor_words(self._config, packed_pixels(location, pixels), location.channels, location.shift)

    def _input_rows(self, rows: int) -> int:
        shape = self._shape
        return min(shape.in_h, (rows - 1) * shape.stride.y + (shape.kernel.y - 1) * shape.dilation.y + 1)

    def _operands(self, plan: _Plan) -> tuple[Source, Source | None, Sink]:
        """Sources and sink with their buffers: inputs in one sub-bank, everything else in the other."""
        layer, memory, shape = self._layer, self._memory, self._shape
        rows = max(last - first for first, last in plan.strips)
        near = memory.scratchpad.sub_bank(layer.source.region) if layer.source.region is not None else 0
        source = Source(memory, layer.source, self._input_rows(rows) * shape.in_w, prefer=near)
        sink = Sink(memory, layer.output, rows * shape.out_w, prefer=1 - near)
        residual = None
        if layer.residual is not None:
            residual = Source(memory, layer.residual, rows * shape.out_w, prefer=1 - near)
        if not (source.fits and sink.fits and (residual is None or residual.fits)):
            raise OutOfScratchpad(layer.name)
        return source, residual, sink

    def _fetch(
        self, strip: tuple[int, int], source: Source, residual: Source | None
    ) -> tuple[tuple[View, int], tuple[View, int] | None]:
        shape = self._shape
        first, last = shape.input_rows(*strip)
        main = source.fetch(first * shape.in_w, last * shape.in_w)
        side = None if residual is None else residual.fetch(strip[0] * shape.out_w, strip[1] * shape.out_w)
        return main, side

    def _stream_weights(self, plan: _Plan, behind: Sequence[Planned] = ()) -> None:
        """WEIGHT commands of one strip (of all strips when the entries are held).

        With ``behind``, loads that the layer cannot start without, all n tiles but the first stream after them.
        """
        label, recorder = self._layer.label, self._memory.recorder
        total, at, tag = plan.entries * plan.n_tiles, self._weights_at, label & 0xFF
        if behind and plan.n_tiles > 1:
            # The second command waits as if it read what the loads write.
            after = [replace(access, write=False) for load in behind for access in load.accesses if access.write]
            recorder.emit("WEIGHT", label, ddr=at, entries=plan.entries, tag=tag)
            at += plan.entries * entry_bytes(self._config)
            recorder.emit("WEIGHT", label, after, ddr=at, entries=total - plan.entries, tag=tag)
            return
        emit = recorder.emit_early if plan.once else recorder.emit
        emit("WEIGHT", label, ddr=at, entries=total, tag=tag)

    def _stream_tile(self, plan: _Plan, tile: int, m_tiles: int) -> None:
        """The WEIGHT command of one n tile whose entries the ring cannot keep: they stream again for each m tile.

        It is followed by its MAC command: a queue full of WEIGHT commands would keep that from being fetched.
        """
        label = self._layer.label
        address = self._weights_at + tile * plan.entries * entry_bytes(self._config)
        self._memory.recorder.emit("WEIGHT", label, ddr=address, entries=plan.entries, repeat=m_tiles, tag=label & 0xFF)

    def _interleave(self) -> int:
        """log2 of the pixels a row takes in turn, so that rows read different banks."""
        stride = self._layer.shape.stride.x
        return max(0, self._layer.source.shift - (stride.bit_length() - 1))

    def _emit_epilogue(
        self, piece: _Piece, residual: tuple[View, int] | None, target: tuple[View, int], installed: Installed
    ) -> None:
        layer, (view, at), config = self._layer, target, self._config
        channels = (piece.first_tile * config.cols, min(piece.end_tile * config.cols, self._shape.out_c))
        written = view.access(config, write=True, pixels=(at, at + piece.pixels), channels=channels)
        accesses = [*installed.accesses, written]
        side: dict[str, int] = {}
        if residual is not None:
            res_view, res_at = residual
            read = res_view.access(config, write=False, pixels=(res_at, res_at + piece.pixels), channels=channels)
            accesses.append(read)
            side = {"res_enable": 1, **res_view.fields("res", pixel=res_at, channel=channels[0], typed=True)}
        sink = layer.add or layer.requant
        self._memory.recorder.emit(
            "EPILOGUE",
            layer.label,
            accesses,
            **view.fields("out", pixel=at, channel=channels[0], typed=True),
            **side,
            ilv=self._interleave(),
            n_tiles=piece.end_tile - piece.first_tile,
            m_tiles=piece.tiles.m_tiles,
            m_count=piece.pixels,
            t_count=piece.tiles.t_count,
            t_last=piece.tiles.t_last,
            channels=channels[1] - channels[0],
            ctx=installed.ctx,
            wraps=installed.wraps,
            idx_base=installed.idx_base + piece.first_tile * config.acc_beats,
            zp=sink.zero_point,
            lo=sink.act_min,
            hi=sink.act_max,
        )

    def _emit_mac(self, plan: _Plan, piece: _Piece, source: tuple[View, int], *, hold: bool) -> None:
        layer, shape, config = self._layer, self._shape, self._config
        strip, tiles = piece.strip, piece.tiles
        first_row, end_row = shape.input_rows(*strip)
        view, at = source
        count = (end_row - first_row) * shape.in_w
        packed = layer.source.packed
        read = view.access(config, write=False, pixels=(at // packed, -(-(at + count) // packed)))
        if layer.shape.pointwise:
            # One long row: the machine's row counters need no wrap.
            image = {"in_h": 1, "in_w": count, "out_w": piece.pixels}
        else:
            image = {
                "in_h": end_row - first_row,
                "in_w": shape.in_w,
                "out_w": shape.out_w,
                "pad_top": shape.padding.top - strip[0] * shape.stride.y + first_row,
                "pad_left": shape.padding.left,
            }
        self._memory.recorder.emit(
            "MAC",
            layer.label,
            (read,),
            **view.fields("in", pixel=at),
            **image,
            fold=int(self._fold),
            replay=int(plan.replay),
            hold=int(hold),
            ilv=self._interleave(),
            pad_value=layer.pad_value & 0xFF,
            m_count=piece.pixels,
            kh=shape.kernel.y,
            kw=shape.kernel.x,
            cw=1 if self._fold else -(-shape.in_c // config.word_bytes),
            stride_y=shape.stride.y,
            stride_x=shape.stride.x,
            dil_y=shape.dilation.y,
            dil_x=shape.dilation.x,
            n_tiles=piece.end_tile - piece.first_tile,
            m_tiles=tiles.m_tiles,
            t_count=tiles.t_count,
            t_last=tiles.t_last,
            tag=layer.label & 0xFF,
        )
