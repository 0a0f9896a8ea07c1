"""The MAC command once more, as plain loops over Python integers, written from its loop nest and the manual."""

from dataclasses import dataclass, field
from typing import Any

from headrace.config import NpuConfig

from .loops import Fields, place, signed

A8W8, A8W4, A4W4 = range(3)
Tile = list[list[list[int]]]


@dataclass
class Memories:
    """What a MAC command reads: scratchpad bytes and activation shifts, entries (codes [C][W], scales
    [C][G][2]) in order, table of group offset shifts.
    """

    spad: Any
    entries: list[tuple[Any, Any]]
    ka: Any = None
    kc: Any = field(default_factory=list)


def output_pixel(c: NpuConfig, f: Fields, mt: int, t: int, r: int) -> int:
    i = 1 << f["ilv"]
    return mt * f["t_count"] * c.rows + t // i * c.rows * i + r * i + t % i


def word_count(c: NpuConfig, f: Fields) -> int:
    """P."""
    return f["kh"] * (-(-f["kw"] // (c.word_bytes // 4)) if f["fold"] else f["kw"] * f["cw"])


def entry_count(c: NpuConfig, f: Fields) -> int:
    """E."""
    if f["depthwise"]:
        return f["kh"]
    return -(-word_count(c, f) // 2) if f["mode"] == A8W4 else word_count(c, f)


def codes_of(raw: list[int], bits: int, unsigned: int) -> list[int]:
    """Codes of bytes."""
    parts = raw if bits == 8 else [nibble for byte in raw for nibble in (byte & 15, byte >> 4)]
    return [int(v) if unsigned else signed(int(v), bits) for v in parts]


def _pixel(f: Fields, m: int, ky: int, kx: int) -> int | None:
    """Input pixel under a kernel position, None outside."""
    iy = m // f["out_w"] * f["stride_y"] - f["pad_top"] + ky * f["dil_y"]
    ix = m % f["out_w"] * f["stride_x"] - f["pad_left"] + kx * f["dil_x"]
    return iy * f["in_w"] + ix if 0 <= iy < f["in_h"] and 0 <= ix < f["in_w"] else None


def _word_at(c: NpuConfig, mem: Memories, f: Fields, pixel: int | None, plane: int) -> tuple[list[int], int]:
    """Bytes of a word and its activation shift."""
    if pixel is None:
        return [f["pad_value"]] * c.word_bytes, 0
    view = f | {"in_c0": f["in_c0"] // c.word_bytes * c.word_bytes}
    bank, addr, _ = place(c, view, "in_", pixel, plane * c.word_bytes)
    return [int(v) for v in mem.spad[bank, addr]], 0 if mem.ka is None else int(mem.ka[bank, addr])


def word(c: NpuConfig, mem: Memories, f: Fields, n: int, m: int, i: int) -> tuple[list[int], int]:
    """Word i of the reduction as the row of output pixel m sees it, and its activation shift."""
    if m >= f["m_count"] or i >= word_count(c, f):
        return [0] * c.word_bytes, 0
    if f["fold"]:
        taps = c.word_bytes // 4
        ky, block = divmod(i, -(-f["kw"] // taps))
        return [b for u in range(taps) for b in _folded(c, mem, f, m, ky, block * taps + u)], 0
    ky, kx, q = i // (f["kw"] * f["cw"]), i // f["cw"] % f["kw"], i % f["cw"]
    group = n // f["group_tiles"] if f["group_tiles"] else 0
    return _word_at(c, mem, f, _pixel(f, m, ky, kx), q + group * f["group_planes"])


def _folded(c: NpuConfig, mem: Memories, f: Fields, m: int, ky: int, kx: int) -> list[int]:
    pixel = _pixel(f, m, ky, kx)
    if pixel is None:
        return [f["pad_value"]] * 4
    at, part = divmod(pixel + f["in_p0"], c.word_bytes // 4)
    return _word_at(c, mem, f | {"in_p0": 0}, at, 0)[0][4 * part : 4 * part + 4]


def rounding_shift(x: int, n: int) -> int:
    return (x + (1 << (n - 1))) >> n if n else x


def _bits(f: Fields) -> tuple[int, int]:
    """Bits of activation and weight codes."""
    return 4 if f["mode"] == A4W4 else 8, 8 if f["mode"] == A8W8 else 4


def _decoded(f: Fields, codes: Any) -> list[list[int]]:
    """Weight codes of every column of an entry."""
    return [codes_of(column.view("u1").tolist(), _bits(f)[1], f["weight_unsigned"]) for column in codes]


Entry = tuple[list[list[int]], Any]


def _dense_row(c: NpuConfig, mem: Memories, f: Fields, n: int, m: int, entries: list[Entry]) -> list[list[int]]:
    words = 2 if f["mode"] == A8W4 else 1
    acc = [0] * c.cols
    for e, (weights, _) in enumerate(entries):
        raw = [b for h in range(words) for b in word(c, mem, f, n, m, words * e + h)[0]]
        a = codes_of(raw, _bits(f)[0], f["act_unsigned"])
        for col in range(c.cols):
            assert len(a) == len(weights[col])
            acc[col] += sum(p * q for p, q in zip(a, weights[col]))
    return [acc]


def _scaled_row(c: NpuConfig, mem: Memories, f: Fields, n: int, m: int, entries: list[Entry]) -> list[list[int]]:
    """Code by code; a group closes at its last code, or at the last code of the last word."""
    size = 16 if f["mode"] == A8W8 else 32
    codes = [code for i in range(word_count(c, f)) for code in _coded(c, mem, f, n, m, i)]
    acc, psum, xsum = [0] * c.cols, [0] * c.cols, 0
    for k, (a, ka) in enumerate(codes):
        e, j = divmod(k, len(entries[0][0][0]))
        weights, scales = entries[e]
        xsum += a
        psum = [p + a * weights[col][j] for col, p in enumerate(psum)]
        if k % size != size - 1 and k != len(codes) - 1:
            continue
        for col in range(c.cols):
            value = 8 * psum[col]
            if f["mode"] != A8W8:
                sd, sm = (int(v) for v in scales[col][j // size])
                kc = int(mem.kc[f["kc_base"] + n][col // 8]) >> 4 * (col % 8) & 7
                value = sd * psum[col] + ((signed(sm, 8) * xsum) << kc)
            acc[col] += rounding_shift(value, ka)
        psum, xsum = [0] * c.cols, 0
    return [acc]


def _coded(c: NpuConfig, mem: Memories, f: Fields, n: int, m: int, i: int) -> list[tuple[int, int]]:
    """Codes of word i, each with the word's activation shift."""
    raw, ka = word(c, mem, f, n, m, i)
    return [(a, ka) for a in codes_of(raw, _bits(f)[0], f["act_unsigned"])]


def _depthwise_row(c: NpuConfig, mem: Memories, f: Fields, n: int, m: int, entries: list[Entry]) -> list[list[int]]:
    halves = c.word_bytes // c.cols
    acc = [[0] * c.cols for _ in range(halves)]
    for ky, (weights, _) in enumerate(entries):
        for kx in range(f["kw"]):
            raw = [0] * c.word_bytes if m >= f["m_count"] else _word_at(c, mem, f, _pixel(f, m, ky, kx), n)[0]
            a = codes_of(raw, 8, f["act_unsigned"])
            for h in range(halves):
                for col in range(c.cols):
                    acc[h][col] += a[h * c.cols + col] * weights[col][h * c.lanes + kx]
    return acc


def mac_tiles(c: NpuConfig, mem: Memories, f: Fields) -> list[Tile]:
    """Accumulators [t * H + h][r][c] of every tile, in order."""
    row = _depthwise_row if f["depthwise"] else _scaled_row if f["scales"] else _dense_row
    count = entry_count(c, f)
    entries = [(_decoded(f, codes), scales) for codes, scales in mem.entries]
    tiles = []
    for n in range(f["n_tiles"]):
        for mt in range(f["m_tiles"]):
            mine = entries[n * count : (n + 1) * count] if f["hold"] else entries[:count]
            tile: Tile = []
            for t in range(f["t_last"] if mt == f["m_tiles"] - 1 else f["t_count"]):
                rows = [row(c, mem, f, n, output_pixel(c, f, mt, t, r), mine) for r in range(c.rows)]
                tile += [[rows[r][h] for r in range(c.rows)] for h in range(len(rows[0]))]
            tiles.append(tile)
            if not f["hold"] and (not f["replay"] or mt == f["m_tiles"] - 1):
                del entries[:count]
    return tiles
