"""Which bytes, elements and registers a command reads and writes, enumerated from its loop nest."""

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

from headrace.config import Precision
from headrace.isa import Dest, DType

from .space import Ids, Space, unite
from .streams import element_bits

__all__ = ["FOLDED_PIXEL", "footprint", "output_pixels"]

FOLDED_PIXEL = 4  # bytes of a pixel when MAC folds kernel columns into words

Fields = Mapping[str, int]
Footprint = tuple[Ids, Ids]

_NOTHING: Ids = np.zeros(0, np.int64)


def footprint(space: Space, name: str, fields: dict[str, int], *, across: bool = False) -> Footprint:
    """Ids read and ids written by a command whose fields are all present (as they are after patching).

    `across`: contexts of the command merge lanes, so that all lanes of the emitted beats are valid.

    Raises:
        ValueError: when the machine would report an address out of range.
    """
    if name in _PASSES:
        return _PASSES[name](space, fields, across)
    return _COMMANDS[name](space, fields)


def _walk(fields: Fields) -> tuple[Ids, Ids, Ids]:
    """Address, displacement in pixels or elements, and byte number of every byte of a DDR walk."""
    address, displacement = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for i in (3, 2, 1):
        count = np.arange(fields[f"n{i}"])
        address = (address[:, None] + count * fields[f"s{i}"]).ravel()
        displacement = (displacement[:, None] + count * fields[f"d{i}"]).ravel()
    j = np.arange(fields["n0"])
    shape = (address.size, j.size)
    return (
        address[:, None] + fields["ddr"] + j,
        np.broadcast_to(displacement[:, None], shape),
        np.broadcast_to(j, shape),
    )


def _walk_spad(space: Space, fields: dict[str, int], displacement: Ids, j: Ids) -> Ids:
    pixel = fields["p0"] + displacement + j // fields["pix_bytes"]
    return space.spad(fields, "", pixel, fields["c0"] + j % fields["pix_bytes"])


def _load(space: Space, fields: dict[str, int]) -> Footprint:
    address, displacement, j = _walk(fields)
    if fields["dest"] == Dest.SPAD:
        reads = _NOTHING if fields["fill"] else unite([space.ddr(address)])
        return reads, space.with_shifts(_walk_spad(space, fields, displacement, j))
    element = fields["element"] + displacement + j // 4
    targets = {Dest.COLUMN: space.column, Dest.CONTEXT: space.context, Dest.KC: space.offset_shift}
    return unite([space.ddr(address)]), unite([targets[Dest(fields["dest"])](element)])


def _store(space: Space, fields: dict[str, int]) -> Footprint:
    address, displacement, j = _walk(fields)
    return unite([_walk_spad(space, fields, displacement, j)]), unite([space.ddr(address)])


def _weight(space: Space, fields: dict[str, int]) -> Footprint:
    beats = space.config.entry_beats + (space.config.scale_beats if fields["scales"] else 0)
    size = beats * space.config.axi_bytes * fields["entries"]
    runs = np.arange(fields["outer"])[:, None] * fields["step"]
    return space.ddr((fields["ddr"] + runs + np.arange(size)).ravel()), _NOTHING


def output_pixels(rows: int, fields: Fields) -> Ids:
    """Output pixel m of every (row group of every tile, row), without those at or beyond m_count."""
    tiles, count, last, ilv = fields["m_tiles"], fields["t_count"], fields["t_last"], fields["ilv"]
    out = []
    for tile in range(tiles):
        t = np.arange(last if tile == tiles - 1 else count)[:, None]
        m = tile * count * rows + (t >> ilv) * (rows << ilv) + (np.arange(rows) << ilv) + (t & ((1 << ilv) - 1))
        out.append(m.ravel())
    m = np.concatenate(out)
    return m[m < fields["m_count"]]


def _mac(space: Space, fields: dict[str, int]) -> Footprint:
    word_bytes = space.config.word_bytes
    m = output_pixels(space.config.rows, fields)
    unit = FOLDED_PIXEL if fields["fold"] else word_bytes  # bytes of an entry that one input pixel fills
    per_word = word_bytes // unit
    kernel_columns = -(-fields["kw"] // per_word) * per_word
    first = fields["in_c0"] // word_bytes * word_bytes
    channel = first + (_planes(fields)[:, None] * word_bytes + np.arange(unit)).ravel()
    reads = []
    for ky, kx in product(range(fields["kh"]), range(kernel_columns)):
        iy = m // fields["out_w"] * fields["stride_y"] - fields["pad_top"] + ky * fields["dil_y"]
        ix = m % fields["out_w"] * fields["stride_x"] - fields["pad_left"] + kx * fields["dil_x"]
        inside = (iy >= 0) & (iy < fields["in_h"]) & (ix >= 0) & (ix < fields["in_w"])
        pixel = (fields["in_p0"] + iy[inside] * fields["in_w"] + ix[inside])[:, None]
        reads.append(np.unique(space.spad(fields, "in_", pixel // per_word, channel + pixel % per_word * unit)))
    codes = unite(reads)
    if not fields["scales"]:
        return codes, _NOTHING
    if fields["mode"] == Precision.A8W8:
        return space.with_shifts(codes), _NOTHING
    elements = -(-space.config.cols // 8)  # of a word of the table of group offset shifts
    table = fields["kc_base"] * elements + np.arange(fields["n_tiles"] * elements)
    return unite([space.with_shifts(codes), space.offset_shift(table)]), _NOTHING


def _planes(fields: Fields) -> Ids:
    """Planes of the input that a MAC command reads."""
    tiles = np.arange(fields["n_tiles"])
    if fields["depthwise"]:
        return tiles
    group = tiles // (fields["group_tiles"] or fields["n_tiles"])
    return np.unique(np.add.outer(group * fields["group_planes"], np.arange(fields["cw"])))


def _contexts(space: Space, fields: Fields) -> Ids:
    return unite(space.context_number(c) for c in range(fields["ctx"], fields["ctx"] + fields["wraps"] + 1))


def _beats(
    space: Space, fields: dict[str, int], prefix: str, pixel: Ids, channel: Ids, lanes: npt.NDArray[np.int64]
) -> Ids:
    """Ids that beats of a stream touch: `lanes` valid ones from a channel byte on; for KA activation shifts."""
    pixel, channel, lanes = (np.ravel(part) for part in np.broadcast_arrays(pixel, channel, lanes))
    if fields[f"{prefix}type"] == DType.KA:
        valid = lanes > 0
        return unite([space.shift(fields, prefix, pixel[valid], channel[valid])])
    sizes = -(-lanes * element_bits(fields[f"{prefix}type"]) // 8)
    beat, byte = np.nonzero(np.arange(sizes.max(initial=0)) < sizes[:, None])
    return unite([space.spad(fields, prefix, pixel[beat], channel[beat] + byte)])


def _writes(ids: Ids, space: Space, fields: Fields, prefix: str) -> Ids:
    return ids if fields[f"{prefix}type"] == DType.KA else space.with_shifts(ids)


def _epilogue(space: Space, fields: dict[str, int], across: bool) -> Footprint:
    config = space.config
    m = output_pixels(config.rows, fields)[:, None]
    tiles = fields["n_tiles"] * (config.halves if fields["depthwise"] else 1)
    within = np.arange(config.acc_beats) * config.vector_lanes
    first = (np.arange(tiles)[:, None] * config.cols + within).ravel()  # channel of lane 0 of a beat
    lanes = np.tile(np.minimum(config.vector_lanes, config.cols - within), tiles)
    if fields["channels"]:
        lanes = np.clip(fields["channels"] - first, 0, lanes)

    def stream(prefix: str, lanes: npt.NDArray[np.int64], first: npt.NDArray[np.int64] = first) -> Ids:
        byte = fields[f"{prefix}c0"] + first * element_bits(fields[f"{prefix}type"]) // 8
        return _beats(space, fields, prefix, fields[f"{prefix}p0"] + m, byte, lanes)

    reads = [_contexts(space, fields)]
    if fields["res_enable"]:
        reads.append(stream("res_", lanes, 0 * first if fields["res_row"] else first))
    emitted = np.full_like(lanes, config.vector_lanes) if across else lanes
    return unite(reads), _writes(stream("out_", emitted), space, fields, "out_")


def _vector(space: Space, fields: dict[str, int], across: bool) -> Footprint:
    width = space.config.vector_lanes
    total = int(np.prod([fields[f"n{i}"] for i in range(4)]))
    k = np.zeros(1, np.int64)
    for i in (3, 2, 1, 0):
        step = np.arange(fields[f"n{i}"]) * (fields["idx_loop"] == i)
        k = (k[:, None] + step).ravel()
    lanes = np.full(total, width)
    if fields["channels"]:
        lanes = np.clip(fields["channels"] - k * width, 0, width)

    def stream(prefix: str, counts: list[int], lanes: npt.NDArray[np.int64], places: int = 1) -> Ids:
        """What is read; each beat at one of so many `places`."""
        pixel, channel = np.array([fields[f"{prefix}p0"]]), np.array([fields[f"{prefix}c0"]])
        for i in reversed(range(len(counts))):
            loop = np.arange(counts[i])
            pixel = (pixel[:, None] + loop * fields[f"{prefix}dp{i}"]).ravel()
            channel = (channel[:, None] + loop * fields[f"{prefix}dc{i}"]).ravel()
        pixel = (pixel[:, None] + np.arange(places)).ravel()
        return _beats(space, fields, prefix, pixel, np.repeat(channel, places), np.repeat(lanes, places))

    counts = [fields[f"n{i}"] for i in range(4)]
    placed = [fields[f"m{i}"] for i in range(3)]
    repeat = total // int(np.prod(placed))
    places = 1 << fields["x_gather"] if fields["y_enable"] else 1
    reads = [_contexts(space, fields), stream("x_", counts, lanes, places)]
    if fields["y_enable"]:
        reads.append(stream("y_", counts, lanes))
    emitted = lanes[repeat - 1 :: repeat]
    if across:
        emitted = np.full_like(emitted, width)
    return unite(reads), _writes(stream("o_", placed, emitted), space, fields, "o_")


def _scalar(space: Space, fields: dict[str, int]) -> Footprint:
    return space.scalar(fields["src"]) if fields["op"] else _NOTHING, space.scalar(fields["dst"])


def _end(space: Space, fields: dict[str, int]) -> Footprint:
    return _NOTHING, _NOTHING


_COMMANDS: dict[str, Callable[[Space, dict[str, int]], Footprint]] = {
    "LOAD": _load,
    "WEIGHT": _weight,
    "STORE": _store,
    "MAC": _mac,
    "SCALAR": _scalar,
    "END": _end,
}
_PASSES: dict[str, Callable[[Space, dict[str, int], bool], Footprint]] = {"EPILOGUE": _epilogue, "VECTOR": _vector}
