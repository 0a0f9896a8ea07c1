"""How a layer occupies the MAC array: mode, weight entries, n tiles and the cycles they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig, Precision
from headrace_host.compiler.depthwise import depthwise_cycles, depthwise_mode, pack_depthwise
from headrace_host.compiler.grouping import Grouping
from headrace_host.compiler.packing import entries_per_tile, entry_bytes, pack_weights, word_codes
from headrace_host.compiler.tiling import ConvShape
from headrace_host.errors import CompileError
from headrace_host.models.graph import GroupScales


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """One layer on one machine.

    ``accs`` row groups may share an entry; a row group takes ``cycles`` with all entries of an n tile; ``words`` are
    the channel words reduced over. ``weight_bytes`` are those of an entry in DDR.
    """

    precision: Precision
    fold: bool
    depthwise: bool
    entries: int
    n_tiles: int
    tile_channels: int
    words: int
    accs: int
    cycles: int
    entry_bytes: int
    grouping: Grouping | None = None

    def planes(self, first_tile: int, end_tile: int) -> tuple[int, dict[str, int]]:
        """First plane that n tiles ``[first_tile, end_tile)`` read, and the fields that step from plane to plane."""
        if self.depthwise:
            return first_tile, {}
        if self.grouping is None:
            return 0, {}
        first = self.grouping.first_plane(first_tile)
        if end_tile - first_tile == 1:
            return first, {}
        return first, {"group_tiles": self.grouping.tiles, "group_planes": self.grouping.step}

    @property
    def cuts(self) -> tuple[int, ...]:
        """n tiles at which MAC commands must end."""
        return () if self.grouping is None else self.grouping.cuts(self.n_tiles)


def map_layer(
    config: NpuConfig,
    shape: ConvShape,
    *,
    precision: Precision,
    fold: bool,
    interleave: int,
    depthwise: bool,
    groups: int,
    scales: GroupScales | None,
) -> Mapping:
    """Choose the mode for a layer.

    Raises:
        CompileError: when the machine cannot apply group scales to it.
    """
    if depthwise and precision is not Precision.A8W8:
        raise CompileError(f"depthwise convolutions are A8W8, not {precision.name}; keep their weights INT8")
    if depthwise and depthwise_mode(config, shape, interleave):
        return _depthwise(config, shape, interleave)
    groups = shape.in_c if depthwise else groups
    grouping, words = None, -(-shape.in_c // word_codes(config, precision))
    if groups > 1:
        word = word_codes(config, precision)
        grouping = Grouping.of(groups=groups, filters=shape.out_c, channels=shape.in_c, cols=config.cols, word=word)
        words = grouping.words
    accs = config.accs
    if scales is not None:
        if not config.scaled(precision) or config.scaled_accs >> interleave == 0 or grouping is not None:
            raise CompileError(f"machine '{config.name}' cannot apply group scales in {precision.name} to this layer")
        accs = config.scaled_accs
    channels = words * word_codes(config, precision)
    kernel = shape.kernel
    entries = entries_per_tile(
        config, kernel.y, kernel.x, shape.in_c if fold else channels, fold=fold, precision=precision
    )
    return Mapping(
        precision=precision,
        fold=fold,
        depthwise=False,
        entries=entries,
        n_tiles=-(-shape.out_c // config.cols),
        tile_channels=config.cols,
        words=1 if fold else words,
        accs=accs,
        cycles=entries * precision.phases,
        entry_bytes=entry_bytes(config, scales=scales is not None and scales.sd is not None),
        grouping=grouping,
    )


def _depthwise(config: NpuConfig, shape: ConvShape, interleave: int) -> Mapping:
    return Mapping(
        precision=Precision.A8W8,
        fold=False,
        depthwise=True,
        entries=shape.kernel.y,
        n_tiles=-(-shape.out_c // config.word_bytes),
        tile_channels=config.word_bytes,
        words=1,
        accs=config.accs // config.halves,
        cycles=depthwise_cycles(config, shape, interleave),
        entry_bytes=entry_bytes(config),
    )


def pack_layer(config: NpuConfig, mapping: Mapping, weights: NDArray[np.int8], *, scales: GroupScales | None) -> bytes:
    """Weight entries of a mapped layer in ring order; ``weights`` is [filters, ky, kx, channels / groups]."""
    if mapping.depthwise:
        return pack_depthwise(config, weights)
    if mapping.grouping is not None:
        word = word_codes(config, mapping.precision)
        weights = mapping.grouping.dense(weights, cols=config.cols, word=word)
    return pack_weights(config, weights, fold=mapping.fold, precision=mapping.precision, scales=scales)
