"""Weight entries in DDR, their scales and group offset shifts, and the WEIGHT commands that stream them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import Dest

from .allocate import NoRoom
from .builder import Builder
from .operation import Operation
from .patches import patched_weight
from .shapes import Shape
from .transfers import load_tensor

__all__ = ["Entries", "computed_entries", "load_offset_shifts", "random_entries", "weight_commands"]


@dataclass(frozen=True)
class Entries:
    """Entries of all n tiles of a shape at a DDR address."""

    address: int
    tile: int  # entries of an n tile
    n_tiles: int
    scales: bool  # entries carry scales

    @property
    def count(self) -> int:
        """All entries."""
        return self.tile * self.n_tiles

    def size(self, config: NpuConfig) -> int:
        """Bytes of an entry."""
        return (config.entry_beats + (config.scale_beats if self.scales else 0)) * config.axi_bytes


def _entries(build: Builder, shape: Shape) -> Entries:
    """Without an address. Entries carry scales where the MAC needs them, and sometimes where it does not, or the other
    way round: their scales are zero then."""
    scales = build.chance(0.95 if shape.arithmetic.offsets else 0.2)
    return Entries(0, shape.entries(build.config), shape.n_tiles, scales)


def random_entries(build: Builder, shape: Shape) -> Entries:
    """Random codes and scales; sometimes only extreme ones."""
    config, rng = build.config, build.rng
    made = _entries(build, shape)
    size = made.size(config)
    address = build.ddr.place_input(made.count * size, align=config.axi_bytes)
    content = rng.integers(0, 256, (made.count, size), dtype=np.uint8)
    codes = config.entry_beats * config.axi_bytes
    if build.chance(0.1):
        content[:, :codes] = rng.choice(np.array([0x00, 0x7F, 0x80, 0x88, 0xFF], np.uint8), (made.count, codes))
    if made.scales:
        most = shape.scale_limits(config)[0] if shape.arithmetic.offsets else 255
        sd, sm = content[:, codes::2], content[:, codes + 1 :: 2]
        if build.chance(0.15):
            sd[:] = 255
            sm[:] = rng.choice(np.array([0x7F, 0x80], np.uint8), sm.shape)
        np.minimum(sd, most, out=sd)
    build.ddr.put(address, content.tobytes())
    return Entries(address, made.tile, made.n_tiles, made.scales)


def computed_entries(build: Builder, shape: Shape) -> Entries:
    """As `random_entries`, but the machine stores them: activations that become weights, as in attention.

    Raises:
        NoRoom: also when the largest scales could overflow.
    """
    config = build.config
    made = _entries(build, shape)
    if made.scales and shape.arithmetic.offsets and shape.scale_limits(config)[0] < 255:
        raise NoRoom
    size = made.count * made.size(config)
    channels = build.pick(1, 2 * config.word_bytes)
    tensor = build.chip.tensor(pixels=-(-size // channels), channels=channels)
    load_tensor(build, tensor)
    address = build.ddr.place_output(size, align=config.axi_bytes)
    build.emit("STORE", tensor.view() | {"ddr": address, "n0": size, "pix_bytes": channels})
    return Entries(address, made.tile, made.n_tiles, made.scales)


def load_offset_shifts(build: Builder, shape: Shape) -> int:
    """First of the words of the table of group offset shifts that the n tiles use; any word if they use none."""
    config = build.config
    if not shape.arithmetic.offsets:
        return build.pick(0, (1 << 12) - 1)
    most = build.pick(0, shape.scale_limits(config)[1])
    elements = -(-config.cols // 8)
    base = build.chip.offset_shifts(shape.n_tiles)
    shifts = build.rng.integers(0, most + 1, (shape.n_tiles, elements, 8), dtype=np.uint32)
    shifts |= build.rng.integers(0, 2, shifts.shape, dtype=np.uint32) << 3  # bit 3 has no meaning
    words = (shifts << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
    build.load_elements(Dest.KC, base * elements, words.ravel())
    return base


def weight_commands(build: Builder, entries: Entries, repeat: int, tag: int) -> list[Operation]:
    """WEIGHT commands, at most a queue of them, that push what the MAC consumes, in order."""
    config = build.config
    if repeat > 1 and entries.n_tiles > config.queue_depth:
        raise NoRoom
    pieces = [(n * entries.tile, entries.tile, repeat) for n in range(entries.n_tiles)]
    if repeat == 1:
        total = entries.count
        inner = build.rng.integers(1, total, build.pick(0, config.queue_depth - 1)) if total > 1 else ()
        cuts = [0, *sorted({int(c) for c in inner}), total]
        pieces = [(a, b - a, 1) for a, b in pairwise(cuts)]
    commands: list[Operation] = []
    for first, count, times in pieces:
        address = entries.address + first * entries.size(config)
        runs = build.runs(count)
        step = count // runs * entries.size(config)
        fields = {"ddr": address, "entries": count // runs, "outer": runs, "step": step, "repeat": times}
        fields |= {"scales": int(entries.scales), "tag": tag}
        commands += patched_weight(build, fields)
    return commands
