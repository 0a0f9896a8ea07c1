"""Lowering of convolutions, fully connected layers and matrix products with their epilogue."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.config import Precision
from headrace.isa import DType
from headrace_host.compiler.constants import ConstantStore, DdrImage, Installed, Vectors
from headrace_host.compiler.layout import View
from headrace_host.compiler.mac_plan import MacLayer, MacPlan, interleave, plan_layer
from headrace_host.compiler.mapping import pack_layer
from headrace_host.compiler.operands import Fetched, Memory, OutOfScratchpad, Sink, Source
from headrace_host.compiler.packing import element_bytes
from headrace_host.compiler.programs import place, requantise_steps
from headrace_host.compiler.stream import Access, Planned
from headrace_host.compiler.tiling import Tiles, cut_tiles
from headrace_host.errors import CompileError

__all__ = ["MacLayer", "MacLowering", "OutOfScratchpad"]

_RESTART_CYCLES = 120
"""Cycles from the last word of an input to the first weight entry of a WEIGHT command that waited for it."""


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
        self._check_types()
        self._shape = layer.shape.normalised()
        self._constants = constants
        self._plan = plan_layer(layer, memory)
        self._mapping = self._plan.mapping
        packed = pack_layer(self._config, self._mapping, layer.weights, scales=layer.group_scales)
        self._weights_at = image.place(packed, layer.name)

    def _check_types(self) -> None:
        config, layer = self._config, self._layer
        if DType.I4 in (layer.output_type, layer.residual_type) and (config.cols % 2 or config.vector_lanes % 2):
            raise CompileError(
                f"layer '{layer.name}': INT4 activations need even C and L, machine '{config.name}' has "
                f"{config.cols} and {config.vector_lanes}; keep them INT8"
            )

    def emit(self) -> None:
        """Strips in order: fetch the input, compute, drain, send the output on."""
        plan, layer, memory = self._plan, self._layer, self._memory
        source, residual, sink = self._operands(plan)
        commands = len(memory.recorder.commands)
        fetched = self._fetch(plan.strips[0], source, residual)
        loads = memory.recorder.commands[commands:]
        if plan.replay and plan.once:
            self._stream_weights(behind=loads)
        installed = self._install()
        shifts = self._install_shifts()
        for position, strip in enumerate(plan.strips):
            here, hold = fetched, False
            # Loads of the next strip go before this strip's work in the ring, so that they run beside it.
            if position + 1 < len(plan.strips):
                fetched, hold = self._fetch(plan.strips[position + 1], source, residual), plan.hold
            if plan.replay and not plan.once:
                self._stream_weights()
            first, last = strip[0] * self._shape.out_w, strip[1] * self._shape.out_w
            view, at = sink.open(first)
            tiles = cut_tiles(self._config, last - first, interleave(layer), self._mapping.accs)
            for first_tile, end_tile in itertools.pairwise((0, *plan.cuts, self._mapping.n_tiles)):
                if not plan.replay:
                    self._stream_tile(first_tile, tiles.m_tiles)
                piece = _Piece(strip, last - first, tiles, first_tile, end_tile)
                self._emit_mac(piece, here[0], shifts, hold=hold)
                self._emit_epilogue(piece, here[1], (view, at), installed)
            sink.close(first, last, view, at)
        memory.release_buffers()
        output = layer.output
        output.loaded, output.writer = output.pixels, layer.label
        output.settled = plan.strips[-1][0] * self._shape.out_w
        cut = plan.cuts[-1] * self._mapping.tile_channels if plan.cuts and plan.replay else 0
        output.settled_channels = element_bytes(layer.output_type, cut)

    def _install(self) -> Installed:
        layer = self._layer
        program = place(self._config, requantise_steps(layer.requant, layer.add, flip=layer.residual_first))
        vectors: Vectors = {"bias": layer.requant.bias, "scale": layer.requant.scale}
        return self._constants.install(program, vectors, layer.label)

    def _install_shifts(self) -> tuple[int, tuple[Access, ...]]:
        """Base word of the layer's group offset shifts and what reading them touches."""
        scales = self._layer.group_scales
        if scales is None or scales.kc is None:
            return 0, ()
        return self._constants.install_shifts(scales.kc, self._layer.label)

    def _operands(self, plan: MacPlan) -> tuple[Source, Source | None, Sink]:
        """Sources and sink with their buffers: inputs in one sub-bank, everything else in the other."""
        layer, memory, shape = self._layer, self._memory, self._shape
        rows = max(last - first for first, last in plan.strips)
        near = memory.scratchpad.sub_bank(layer.source.region) if layer.source.region is not None else 0
        sink = Sink(memory, layer.output, rows * shape.out_w, prefer=1 - near)
        residual = None
        if layer.residual is not None:
            residual = Source(memory, layer.residual, rows * shape.out_w, prefer=1 - near)
        pixels, overlap = shape.strip_inputs(rows) * shape.in_w, shape.kernel.y > shape.stride.y
        source = Source(memory, layer.source, pixels, prefer=near, slide=overlap)
        if not (source.fits and sink.fits and (residual is None or residual.fits)):
            raise OutOfScratchpad(layer.name)
        return source, residual, sink

    def _fetch(self, strip: tuple[int, int], source: Source, residual: Source | None) -> tuple[Fetched, Fetched | None]:
        shape = self._shape
        first, last = shape.input_rows(*strip)
        main = source.fetch(first * shape.in_w, last * shape.in_w)
        side = None if residual is None else residual.fetch(strip[0] * shape.out_w, strip[1] * shape.out_w)
        return main, side

    def _emit_weights(
        self, entries: int, *, at: int = 0, after: Sequence[Access] = (), early: bool = False, repeat: int = 1
    ) -> None:
        """A WEIGHT command for ``entries`` from entry ``at`` on."""
        label, recorder, mapping = self._layer.label, self._memory.recorder, self._mapping
        scales = self._layer.group_scales
        emit = recorder.emit_early if early else recorder.emit
        emit(
            "WEIGHT",
            label,
            after,
            ddr=self._weights_at + at * mapping.entry_bytes,
            entries=entries,
            repeat=repeat,
            scales=int(scales is not None and scales.sd is not None),
            tag=label & 0xFF,
        )

    def _stream_weights(self, behind: Sequence[Planned] = ()) -> None:
        """WEIGHT commands of one strip (of all strips when the entries are held).

        With ``behind``, loads that the layer cannot start without, all n tiles but the first stream after them.
        """
        mapping, plan = self._mapping, self._plan
        total = mapping.entries * mapping.n_tiles
        groups = -(-(plan.strips[0][1] * self._shape.out_w) // self._config.rows)
        first = -(-_RESTART_CYCLES // (mapping.cycles * groups)) * mapping.entries
        if not behind or first >= total:
            self._emit_weights(total, early=plan.once)
            return
        # The second command waits as if it read what the loads write.
        after = [replace(access, write=False) for load in behind for access in load.accesses if access.write]
        self._emit_weights(first)
        self._emit_weights(total - first, at=first, after=after)

    def _stream_tile(self, tile: int, m_tiles: int) -> None:
        """The WEIGHT command of one n tile whose entries the ring cannot keep: they stream again for each m tile.

        It is followed by its MAC command: a queue full of WEIGHT commands would keep that from being fetched.
        """
        self._emit_weights(self._mapping.entries, at=tile * self._mapping.entries, repeat=m_tiles)

    def _channels(self, piece: _Piece) -> tuple[int, int]:
        """Output channels of a piece."""
        tile = self._mapping.tile_channels
        return piece.first_tile * tile, min(piece.end_tile * tile, self._shape.out_c)

    def _emit_epilogue(
        self, piece: _Piece, residual: Fetched | None, target: tuple[View, int], installed: Installed
    ) -> None:
        layer, (view, at), config = self._layer, target, self._config
        channels = self._channels(piece)
        span = (element_bytes(layer.output_type, channels[0]), element_bytes(layer.output_type, channels[1]))
        written = view.access(config, write=True, pixels=(at, at + piece.pixels), channels=span)
        accesses = [*installed.accesses, written]
        side: dict[str, int] = {}
        if residual is not None:
            res_view, res_at = residual.view, residual.pixel
            start, end = (element_bytes(layer.residual_type, channel) for channel in channels)
            pixels = (res_at, res_at + piece.pixels)
            accesses += [res_view.access(config, write=False, pixels=pixels, channels=(start, end)), *residual.turns]
            side = {"res_enable": 1, **res_view.fields("res", pixel=res_at, channel=start)}
            side["res_type"] = int(layer.residual_type)
        sink = layer.add or layer.requant
        self._memory.recorder.emit(
            "EPILOGUE",
            layer.label,
            accesses,
            **view.fields("out", pixel=at, channel=span[0]),
            out_type=int(layer.output_type),
            **side,
            ilv=interleave(layer),
            n_tiles=piece.end_tile - piece.first_tile,
            m_tiles=piece.tiles.m_tiles,
            m_count=piece.pixels,
            t_count=piece.tiles.t_count,
            t_last=piece.tiles.t_last,
            channels=channels[1] - channels[0],
            depthwise=int(self._mapping.depthwise),
            ctx=installed.ctx,
            wraps=installed.wraps,
            idx_base=installed.idx_base + channels[0] // config.cols * config.acc_beats,
            zp=sink.zero_point,
            lo=sink.act_min,
            hi=sink.act_max,
        )

    def _emit_mac(self, piece: _Piece, source: Fetched, shifts: tuple[int, tuple[Access, ...]], *, hold: bool) -> None:
        layer, shape, mapping, config = self._layer, self._shape, self._mapping, self._config
        view, at = source.view, source.pixel
        first_row, end_row = shape.input_rows(*piece.strip)
        count = (end_row - first_row) * shape.in_w
        packed = layer.source.packed
        read = view.access(config, write=False, pixels=(at // packed, -(-(at + count) // packed)))
        plane, stepping = mapping.planes(piece.first_tile, piece.end_tile)
        base, touched = shifts
        self._memory.recorder.emit(
            "MAC",
            layer.label,
            (read, *source.turns, *touched),
            **view.fields("in", pixel=at, channel=plane * config.word_bytes),
            **self._image(piece),
            **stepping,
            mode=int(layer.precision),
            fold=int(mapping.fold),
            replay=int(self._plan.replay),
            hold=int(hold),
            scales=int(layer.group_scales is not None),
            act_unsigned=int(layer.act_unsigned),
            weight_unsigned=int(layer.weight_unsigned),
            depthwise=int(mapping.depthwise),
            ilv=interleave(layer),
            pad_value=self._pad_value(),
            m_count=piece.pixels,
            kh=shape.kernel.y,
            kw=shape.kernel.x,
            cw=mapping.words,
            stride_y=shape.stride.y,
            stride_x=shape.stride.x,
            dil_y=shape.dilation.y,
            dil_x=shape.dilation.x,
            n_tiles=piece.end_tile - piece.first_tile,
            m_tiles=piece.tiles.m_tiles,
            t_count=piece.tiles.t_count,
            t_last=piece.tiles.t_last,
            tag=layer.label & 0xFF,
            kc_base=base + piece.first_tile if touched else 0,
        )

    def _image(self, piece: _Piece) -> dict[str, int]:
        """Extents of the part of the input that a piece reads, and its padding."""
        shape, strip = self._shape, piece.strip
        first, end = shape.input_rows(*strip)
        if self._layer.shape.pointwise:
            # One long row: the machine's row counters need no wrap.
            return {"in_h": 1, "in_w": (end - first) * shape.in_w, "out_w": piece.pixels}
        return {
            "in_h": end - first,
            "in_w": shape.in_w,
            "out_w": shape.out_w,
            "pad_top": shape.padding.top - strip[0] * shape.stride.y + first,
            "pad_left": shape.padding.left,
        }

    def _pad_value(self) -> int:
        """The byte of the zero point; with INT4 activations it holds the code twice."""
        code = self._layer.pad_value
        return (code & 15) * 17 if self._layer.precision is Precision.A4W4 else code & 0xFF
