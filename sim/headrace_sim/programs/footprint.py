"""Which bytes, elements and registers a command reads and writes, enumerated from its loop nest."""

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

from headrace.isa import Dest, DType

from .space import Ids, Space, unite

__all__ = ["FOLDED_PIXEL", "element_bytes", "footprint", "output_pixels"]

FOLDED_PIXEL = 4  # bytes of a pixel when MAC folds kernel columns into words

Fields = Mapping[str, int]
Footprint = tuple[Ids, Ids]

_NOTHING: Ids = np.zeros(0, np.int64)


def footprint(space: Space, name: str, fields: dict[str, int]) -> Footprint:
    """Ids read and ids written by a command whose fields are all present (as they are after patching).

    Raises:
        ValueError: when the machine would report an address out of range.
    """
    return _COMMANDS[name](space, fields)


def element_bytes(dtype: int) -> int:
    """Bytes of an element of a dataflow stream."""
    return 4 if dtype == DType.B32 else 1


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
        return reads, unite([_walk_spad(space, fields, displacement, j)])
    element = fields["element"] + displacement + j // 4
    target = space.column if fields["dest"] == Dest.COLUMN else space.context
    return unite([space.ddr(address)]), unite([target(element)])


def _store(space: Space, fields: dict[str, int]) -> Footprint:
    address, displacement, j = _walk(fields)
    return unite([_walk_spad(space, fields, displacement, j)]), unite([space.ddr(address)])


def _weight(space: Space, fields: dict[str, int]) -> Footprint:
    size = space.config.entry_beats * space.config.axi_bytes * fields["entries"]
    return space.ddr(fields["ddr"] + np.arange(size)), _NOTHING


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
    group = np.arange(fields["n_tiles"]) // (fields["group_tiles"] or fields["n_tiles"])
    planes = np.unique(np.add.outer(group * fields["group_planes"], np.arange(fields["cw"])))
    channel = fields["in_c0"] + (planes[:, None] * word_bytes + np.arange(unit)).ravel()
    reads = []
    for ky, kx in product(range(fields["kh"]), range(kernel_columns)):
        iy = m // fields["out_w"] * fields["stride_y"] - fields["pad_top"] + ky * fields["dil_y"]
        ix = m % fields["out_w"] * fields["stride_x"] - fields["pad_left"] + kx * fields["dil_x"]
        inside = (iy >= 0) & (iy < fields["in_h"]) & (ix >= 0) & (ix < fields["in_w"])
        pixel = (fields["in_p0"] + iy[inside] * fields["in_w"] + ix[inside])[:, None]
        reads.append(np.unique(space.spad(fields, "in_", pixel // per_word, channel + pixel % per_word * unit)))
    return unite(reads), _NOTHING


def _contexts(space: Space, fields: Fields) -> Ids:
    return unite(space.context_number(c) for c in range(fields["ctx"], fields["ctx"] + fields["wraps"] + 1))


def _epilogue(space: Space, fields: dict[str, int]) -> Footprint:
    config = space.config
    m = output_pixels(config.rows, fields)[:, None]
    channels = np.arange(fields["n_tiles"] * config.cols)
    channels = channels[channels < fields["channels"]] if fields["channels"] else channels

    def stream(prefix: str) -> Ids:
        size = element_bytes(fields[f"{prefix}type"])
        byte = (channels[:, None] * size + np.arange(size)).ravel()
        return unite([space.spad(fields, prefix, fields[f"{prefix}p0"] + m, fields[f"{prefix}c0"] + byte)])

    reads = [_contexts(space, fields)]
    if fields["res_enable"]:
        reads.append(stream("res_"))
    return unite(reads), stream("out_")


def _vector(space: Space, fields: dict[str, int]) -> Footprint:
    lanes = np.arange(space.config.vector_lanes)
    total = int(np.prod([fields[f"n{i}"] for i in range(4)]))
    k = np.zeros(1, np.int64)
    for i in (3, 2, 1, 0):
        step = np.arange(fields[f"n{i}"]) * (fields["idx_loop"] == i)
        k = (k[:, None] + step).ravel()
    channels = fields["channels"] or int(k.max() + 1) * lanes.size
    valid = (k[:, None] * lanes.size + lanes) < channels

    def stream(prefix: str, counts: list[int], chosen: npt.NDArray[np.bool_]) -> Ids:
        size = element_bytes(fields[f"{prefix}type"])
        pixel, channel = np.array([fields[f"{prefix}p0"]]), np.array([fields[f"{prefix}c0"]])
        for i in reversed(range(len(counts))):
            loop = np.arange(counts[i])
            pixel = (pixel[:, None] + loop * fields[f"{prefix}dp{i}"]).ravel()
            channel = (channel[:, None] + loop * fields[f"{prefix}dc{i}"]).ravel()
        beat, lane = np.nonzero(chosen)
        byte = channel[beat][:, None] + lane[:, None] * size + np.arange(size)
        return unite([space.spad(fields, prefix, np.broadcast_to(pixel[beat][:, None], byte.shape), byte)])

    counts = [fields[f"n{i}"] for i in range(4)]
    emitted = [fields[f"m{i}"] for i in range(3)]
    repeat = total // int(np.prod(emitted))
    reads = [_contexts(space, fields), stream("x_", counts, valid)]
    if fields["y_enable"]:
        reads.append(stream("y_", counts, valid))
    return unite(reads), stream("o_", emitted, valid[repeat - 1 :: repeat])


def _scalar(space: Space, fields: dict[str, int]) -> Footprint:
    return space.scalar(fields["src"]) if fields["op"] else _NOTHING, space.scalar(fields["dst"])


def _end(space: Space, fields: dict[str, int]) -> Footprint:
    return _NOTHING, _NOTHING


_COMMANDS: dict[str, Callable[[Space, dict[str, int]], Footprint]] = {
    "LOAD": _load,
    "WEIGHT": _weight,
    "STORE": _store,
    "MAC": _mac,
    "EPILOGUE": _epilogue,
    "VECTOR": _vector,
    "SCALAR": _scalar,
    "END": _end,
}
