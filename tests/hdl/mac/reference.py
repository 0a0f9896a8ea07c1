"""The loop nest of the MAC command in numpy, and random commands that fit a machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.isa.commands import MAC


class OutOfRange(Exception):
    """A word outside the scratchpad."""


@dataclass(frozen=True)
class Machine:
    rows: int
    cols: int
    lanes: int
    accs: int
    bank_words: int = 64
    ring_entries: int = 128

    @property
    def word_bytes(self) -> int:
        return 2 * self.lanes


def entry_count(cmd: dict, machine: Machine) -> int:
    pixels = machine.word_bytes // 4
    return cmd["kh"] * cmd["cw"] * (-(-cmd["kw"] // pixels) if cmd["fold"] else cmd["kw"])


def word(cmd: dict, machine: Machine, spad: np.ndarray, pixel: int, plane: int) -> np.ndarray:
    """Word of a pixel and plane; spad[bank, address, byte]."""
    s = 1 << cmd["in_shift"]
    address = cmd["in_base"] + plane * cmd["in_plane"] + pixel // (s * machine.rows) * s + pixel % s
    if pixel < 0 or address >= machine.bank_words:
        raise OutOfRange
    return spad[pixel // s % machine.rows, address]


def operand(cmd: dict, machine: Machine, spad: np.ndarray, n: int, m: int, entry: int) -> np.ndarray:
    """The 2K activation bytes of output pixel m for one entry."""
    size = machine.word_bytes
    if m >= cmd["m_count"]:
        return np.zeros(size, np.int8)
    kernel, q = divmod(entry, cmd["cw"])
    units = size // 4 if cmd["fold"] else 1
    ky, kx = divmod(kernel, -(-cmd["kw"] // units))
    iy = m // cmd["out_w"] * cmd["stride_y"] - cmd["pad_top"] + ky * cmd["dil_y"]
    ix = m % cmd["out_w"] * cmd["stride_x"] - cmd["pad_left"] + kx * (units if cmd["fold"] else cmd["dil_x"])
    group = n // cmd["group_tiles"] if cmd["group_tiles"] else 0
    plane = cmd["in_c0"] // size + q + group * cmd["group_planes"]
    out = np.full(size, cmd["pad_value"], np.uint8)
    bytes_each = size // units
    for u in range(units):
        if 0 <= iy < cmd["in_h"] and 0 <= ix + u < cmd["in_w"]:
            pixel = cmd["in_p0"] + iy * cmd["in_w"] + ix + u
            at = pixel % units * bytes_each
            source = word(cmd, machine, spad, pixel // units, plane)
            out[u * bytes_each : (u + 1) * bytes_each] = source[at : at + bytes_each]
    return out.view(np.int8)


def tiles(cmd: dict, machine: Machine, spad: np.ndarray, ring: list[np.ndarray]) -> list[np.ndarray]:
    """Accumulators [t, row, column] of every tile; consumes the entries [column, byte] of the ring."""
    count = entry_count(cmd, machine)
    width = 1 << cmd["ilv"]
    out = []
    for n in range(cmd["n_tiles"]):
        for mt in range(cmd["m_tiles"]):
            first = n * count if cmd["hold"] or cmd["replay"] else (n * cmd["m_tiles"] + mt) * count
            weights = np.array(ring[first : first + count], np.int64)
            used = cmd["t_last"] if mt == cmd["m_tiles"] - 1 else cmd["t_count"]
            tile = np.zeros((used, machine.rows, machine.cols), np.int64)
            for t in range(used):
                for r in range(machine.rows):
                    m = (mt * cmd["t_count"] + t // width * width) * machine.rows + r * width + t % width
                    a = np.array([operand(cmd, machine, spad, n, m, e) for e in range(count)], np.int64)
                    tile[t, r] = np.einsum("ej,ecj->c", a, weights)
            out.append(tile)
    consumed = cmd["n_tiles"] * count * (1 if cmd["hold"] or cmd["replay"] else cmd["m_tiles"])
    if not cmd["hold"]:
        del ring[:consumed]
    return out


def defaults() -> dict[str, int]:
    """Every payload field of the command at a harmless value."""
    header = {"opcode", "reserved", "label", "wait", "signal", "patch0", "patch1"}
    return {f.name: (1 if f.minimum == 1 else 0) for f in MAC.fields if f.name not in header}


def random_command(rng: np.random.Generator, machine: Machine) -> dict[str, int]:
    """A small command; it may reach outside the scratchpad."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    fold = pick(0, 3) == 0
    ilv = pick(0, 1) if machine.accs >= 2 else 0
    groups = machine.accs >> ilv
    cmd = defaults() | dict(
        fold=int(fold), ilv=ilv, in_shift=pick(0, 2), in_base=pick(0, 8), in_p0=pick(0, 12), in_plane=pick(1, 8),
        pad_value=pick(0, 255), in_h=pick(1, 5), in_w=pick(1, 7), kh=pick(1, 3), kw=pick(1, 3 if not fold else 7),
        cw=1 if fold else pick(1, 2), stride_y=pick(1, 2), stride_x=pick(1, 2), dil_y=pick(1, 2),
        dil_x=1 if fold else pick(1, 2), pad_top=pick(-1, 2), pad_left=pick(-1, 2), n_tiles=pick(1, 2),
        t_count=pick(1, groups) << ilv, t_last=pick(1, groups) << ilv, out_w=pick(1, 5), replay=pick(0, 1),
        in_c0=0 if fold else machine.word_bytes * pick(0, 1), tag=pick(0, 255), m_tiles=pick(1, 3),
    )  # fmt: skip
    if not fold and pick(0, 2) == 0:
        cmd |= dict(group_tiles=pick(1, 2), group_planes=pick(1, 2), n_tiles=pick(1, 3))
    full = machine.rows * ((cmd["m_tiles"] - 1) * cmd["t_count"] + cmd["t_last"])
    cmd["m_count"] = pick(max(1, full - machine.rows * cmd["t_last"] // 2), full)
    return cmd
