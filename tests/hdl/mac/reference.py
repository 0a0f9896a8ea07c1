"""The MAC command in numpy, and random commands that fit a machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.config import Precision
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
    kc_words: int = 5
    multiplier: str = "fused"

    @property
    def word_bytes(self) -> int:
        return 2 * self.lanes

    @property
    def groups(self) -> int:
        return max(1, self.lanes // 8)

    @property
    def halves(self) -> int:
        return 0 if self.word_bytes % self.cols else self.word_bytes // self.cols

    @property
    def taps(self) -> int:
        return min(self.lanes, 5) if self.halves in (1, 2) and self.accs >= self.halves else 0


@dataclass(frozen=True)
class Entry:
    """codes [column, byte]; scales [column, group, sd and sm] as bytes."""

    codes: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True)
class Memory:
    """words [bank, address, byte], their activation shifts ka [bank, address], kc [word, column]."""

    words: np.ndarray
    ka: np.ndarray
    kc: np.ndarray


def random_memory(rng: np.random.Generator, machine: Machine) -> Memory:
    words = rng.integers(0, 256, (machine.rows, machine.bank_words, machine.word_bytes)).astype(np.uint8)
    ka = rng.integers(0, 8, (machine.rows, machine.bank_words))
    return Memory(words, ka, rng.integers(0, 8, (machine.kc_words, machine.cols)))


def random_entry(rng: np.random.Generator, machine: Machine) -> Entry:
    codes = rng.integers(0, 256, (machine.cols, machine.word_bytes)).astype(np.uint8)
    return Entry(codes, rng.integers(0, 256, (machine.cols, machine.groups, 2)).astype(np.uint8))


def split(octets: np.ndarray, bits: int, unsigned: int) -> np.ndarray:
    """Codes of `bits` bits along the last axis, the first in the low bits."""
    if bits == 4:
        octets = np.stack([octets & 15, octets >> 4], -1).reshape(*octets.shape[:-1], -1)
    codes = octets.astype(np.int64)
    return codes if unsigned else (codes ^ (1 << bits - 1)) - (1 << bits - 1)


def word_count(cmd: dict, machine: Machine) -> int:
    pixels = machine.word_bytes // 4
    return cmd["kh"] * cmd["cw"] * (-(-cmd["kw"] // pixels) if cmd["fold"] else cmd["kw"])


def entry_count(cmd: dict, machine: Machine) -> int:
    if cmd["depthwise"]:
        return cmd["kh"]
    return -(-word_count(cmd, machine) // Precision(cmd["mode"]).words)


def phase_count(cmd: dict, machine: Machine) -> int:
    """Phases of an entry and row group."""
    return machine.halves if cmd["depthwise"] else Precision(cmd["mode"]).phases


def word(cmd: dict, machine: Machine, memory: Memory, pixel: int, plane: int) -> tuple[np.ndarray, int]:
    """Word of a pixel and plane, and its activation shift."""
    s = 1 << cmd["in_shift"]
    address = cmd["in_base"] + plane * cmd["in_plane"] + pixel // (s * machine.rows) * s + pixel % s
    if pixel < 0 or address >= machine.bank_words:
        raise OutOfRange
    bank = pixel // s % machine.rows
    return memory.words[bank, address], int(memory.ka[bank, address])


def operand(cmd: dict, machine: Machine, memory: Memory, n: int, m: int, i: int) -> tuple[np.ndarray, int]:
    """The 2K bytes of output pixel m that are word i of the reduction, and their activation shift."""
    size = machine.word_bytes
    if m >= cmd["m_count"]:
        return np.zeros(size, np.uint8), 0
    kernel, q = divmod(i, cmd["cw"])
    units = size // 4 if cmd["fold"] else 1
    ky, kx = divmod(kernel, -(-cmd["kw"] // units))
    iy = m // cmd["out_w"] * cmd["stride_y"] - cmd["pad_top"] + ky * cmd["dil_y"]
    ix = m % cmd["out_w"] * cmd["stride_x"] - cmd["pad_left"] + kx * (units if cmd["fold"] else cmd["dil_x"])
    group = n // cmd["group_tiles"] if cmd["group_tiles"] else 0
    plane = cmd["in_c0"] // size + q + (n if cmd["depthwise"] else group * cmd["group_planes"])
    out, ka = np.full(size, cmd["pad_value"], np.uint8), 0
    bytes_each = size // units
    for u in range(units):
        if 0 <= iy < cmd["in_h"] and 0 <= ix + u < cmd["in_w"]:
            pixel = cmd["in_p0"] + iy * cmd["in_w"] + ix + u
            at = pixel % units * bytes_each
            source, ka = word(cmd, machine, memory, pixel // units, plane)
            out[u * bytes_each : (u + 1) * bytes_each] = source[at : at + bytes_each]
    return out, ka


def shift_right(x: np.ndarray, n: int) -> np.ndarray:
    return x if n == 0 else (x + (1 << n - 1)) >> n


def dense(cmd: dict, machine: Machine, words: list, entries: list[Entry], kc: np.ndarray) -> np.ndarray:
    """Accumulators of one row's columns."""
    mode = Precision(cmd["mode"])
    a = np.concatenate([split(w, 4 if mode is Precision.A4W4 else 8, cmd["act_unsigned"]) for w, _ in words])
    total = len(a)
    codes = [split(e.codes, 8 if mode is Precision.A8W8 else 4, cmd["weight_unsigned"]) for e in entries]
    an_entry, a_word = codes[0].shape[1], total // len(words)
    w = np.concatenate(codes, axis=1)
    a = np.pad(a, (0, w.shape[1] - total))
    if not cmd["scales"]:
        return w @ a
    acc = np.zeros(machine.cols, np.int64)
    size = 16 if mode is Precision.A8W8 else 32
    for start in range(0, total, size):
        psum, xsum = w[:, start : start + size] @ a[start : start + size], a[start : start + size].sum()
        end = min(start + size, total) - 1
        ka = words[end // a_word][1]
        if mode is Precision.A8W8:
            acc += shift_right(8 * psum, ka)
            continue
        scales = entries[end // an_entry].scales[:, end % an_entry // 32]
        sd, sm = scales[:, 0].astype(np.int64), scales[:, 1].astype(np.int8).astype(np.int64)
        acc += shift_right(sd * psum + ((sm * xsum) << kc), ka)
    return acc


def depthwise(cmd: dict, machine: Machine, words: list, entries: list[Entry]) -> np.ndarray:
    """Accumulators [half, column] of one row."""
    acc = np.zeros((machine.halves, machine.cols), np.int64)
    for h in range(machine.halves):
        channels = slice(h * machine.cols, (h + 1) * machine.cols)
        for ky in range(cmd["kh"]):
            for kx in range(cmd["kw"]):
                a = split(words[ky * cmd["kw"] + kx][0][channels], 8, cmd["act_unsigned"])
                w = split(entries[ky].codes[:, h * machine.lanes + kx], 8, cmd["weight_unsigned"])
                acc[h] += a * w
    return acc


def tiles(cmd: dict, machine: Machine, memory: Memory, ring: list[Entry]) -> list[np.ndarray]:
    """Accumulators [slot, row, column] of every tile; consumes the entries of the ring."""
    count = entry_count(cmd, machine)
    width = 1 << cmd["ilv"]
    out = []
    for n in range(cmd["n_tiles"]):
        kc = memory.kc[(cmd["kc_base"] + n) % machine.kc_words]
        for mt in range(cmd["m_tiles"]):
            first = n * count if cmd["hold"] or cmd["replay"] else (n * cmd["m_tiles"] + mt) * count
            entries = ring[first : first + count]
            used = cmd["t_last"] if mt == cmd["m_tiles"] - 1 else cmd["t_count"]
            halves = machine.halves if cmd["depthwise"] else 1
            tile = np.zeros((used * halves, machine.rows, machine.cols), np.int64)
            for t in range(used):
                for r in range(machine.rows):
                    m = (mt * cmd["t_count"] + t // width * width) * machine.rows + r * width + t % width
                    words = [operand(cmd, machine, memory, n, m, i) for i in range(word_count(cmd, machine))]
                    if cmd["depthwise"]:
                        tile[t * halves : (t + 1) * halves, r] = depthwise(cmd, machine, words, entries)
                    else:
                        tile[t, r] = dense(cmd, machine, words, entries, kc)
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
        mode=pick(0, 2), act_unsigned=pick(0, 1), weight_unsigned=pick(0, 1),
    )  # fmt: skip
    if not fold and pick(0, 2) == 0:
        cmd |= dict(group_tiles=pick(1, 2), group_planes=pick(1, 2), n_tiles=pick(1, 3))
    if not fold and pick(0, 1) and machine.lanes <= (8 if cmd["mode"] == Precision.A4W4 else 16):
        cmd |= dict(scales=1, kc_base=pick(0, machine.kc_words - cmd["n_tiles"]))
        if machine.lanes < 8:
            cmd |= dict(ilv=0, t_count=1, t_last=1)
    if machine.taps and not fold and pick(0, 2) == 0:
        room = machine.accs // machine.halves
        cmd |= dict(
            depthwise=1, mode=0, scales=0, cw=1, group_tiles=0, kw=pick(1, machine.taps), ilv=pick(0, int(room > 1)),
            out_w=pick(1, 3 * machine.rows),
        )  # fmt: skip
        cmd |= {name: pick(1, room >> cmd["ilv"]) << cmd["ilv"] for name in ("t_count", "t_last")}
    full = machine.rows * ((cmd["m_tiles"] - 1) * cmd["t_count"] + cmd["t_last"])
    cmd["m_count"] = pick(max(1, full - machine.rows * cmd["t_last"] // 2), full)
    return cmd
