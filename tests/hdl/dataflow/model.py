"""EPILOGUE and VECTOR written from the command descriptions, beat by beat in plain Python and numpy."""

import itertools

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, DType, MemIndex, Reduce, Source

from .elements import beat_size, decode, encode
from .reference import lane_op, ordered, row_sum

IDENTITY = {
    Reduce.SUM: 0, Reduce.MAX: -(1 << 31), Reduce.MIN: (1 << 31) - 1,
    Reduce.FMAX: -(1 << 31), Reduce.FMIN: (1 << 31) - 1,
}  # fmt: skip
MERGE = {
    Reduce.SUM: np.add, Reduce.MAX: np.maximum, Reduce.MIN: np.minimum, Reduce.FMAX: np.maximum,
    Reduce.FMIN: np.minimum,
}  # fmt: skip


class Model:
    """Executes commands one after the other on its own scratchpad."""

    def __init__(
        self, config: NpuConfig, spad: np.ndarray, ka: np.ndarray, contexts: dict, memory: np.ndarray | None
    ) -> None:
        self.c, self.spad, self.ka, self.contexts = config, spad.copy(), ka.copy(), contexts
        self.memory = np.zeros((config.columns, config.column_words, config.vector_lanes), np.int64)
        if memory is not None:
            self.memory = memory.reshape(self.memory.shape)

    def _byte(self, f: dict, view: str, pixel: int, channel: int) -> tuple[int, int, int]:
        c, s = self.c, 1 << f.get(f"{view}_shift", 0)
        addr = f.get(f"{view}_base", 0) + channel // c.word_bytes * f.get(f"{view}_plane", 0)
        return pixel // s % c.rows, addr + pixel // (s * c.rows) * s + pixel % s, channel % c.word_bytes

    def read(self, f: dict, view: str, pixel: int, channel: int, valid: list[bool]) -> np.ndarray:
        out, kind, count = np.zeros(len(valid), np.uint32), f.get(f"{view}_type", 0), sum(valid)
        raw = bytes(self.spad[self._byte(f, view, pixel, channel + i)] for i in range(beat_size(kind, count)))
        out[:count] = decode(kind, raw, count)
        return out

    def write(self, f: dict, view: str, pixel: int, channel: int, valid: list[bool], x: np.ndarray) -> None:
        kind, values = f.get(f"{view}_type", 0), [int(v) for v in x[: sum(valid)]]
        if kind == DType.KA and values:
            self.ka[self._byte(f, view, pixel, channel)[:2]] = values[0] & 7
            return
        codes = encode(kind, values, **{name: f.get(name, 0) for name in ("zp", "lo", "hi")})
        for i, code in enumerate(codes):
            at = self._byte(f, view, pixel, channel + i)
            self.spad[at], self.ka[at[:2]] = code, 0

    def _operand(self, k: dict, column: int, x: np.ndarray, y: np.ndarray, idx: int) -> np.ndarray:
        """Operand MEM of a context."""
        base = k.get("mem_base", 0)
        match MemIndex(k.get("mem_index", 0)):
            case MemIndex.NONE:
                word = np.full(len(x), base)
            case MemIndex.IDX:
                word = np.full(len(x), base + idx)
            case MemIndex.X:
                word = base + (x & 0xFF)
            case MemIndex.Y:
                word = base + (y & 0xFF)
        return (self.memory[column, word, np.arange(len(x))] & 0xFFFFFFFF).astype(np.uint32)

    def _result(self, k: dict, column: int, x: np.ndarray, y: np.ndarray, idx: int) -> np.ndarray:
        """What the lanes of a column make of a beat."""
        lanes = np.arange(len(x), dtype=np.uint32)
        operands = {
            Source.Y: y,
            Source.IMM: np.full(len(x), k.get("imm", 0) & 0xFFFFFFFF, np.uint32),
            Source.IDX: np.uint32(idx * len(x)) + lanes,
        }
        if Source.MEM in (k.get("a"), k.get("b")):
            operands[Source.MEM] = self._operand(k, column, x, y, idx)
        a, b = operands.get(k.get("a", 0), x), operands.get(k.get("b", 0), x)
        return lane_op(DataflowOp(k.get("op", 0)), a, b, np.int64(k.get("sh", 0)))

    def columns(self, beats: list[tuple], context: int) -> list[tuple]:
        for column in range(self.c.columns):
            k = self.contexts.get((context, column), {})
            kind = k.get("reduce", 0)
            reduces = kind in MERGE or (kind == Reduce.FSUM and column == self.c.sum_column)
            out, taken = [], []
            for x, y, idx, ends, valid in beats:
                r = self._result(k, column, x, y, idx)
                if reduces:
                    taken.append((r, valid[0]))
                    if not ends if k.get("row") else len(taken) < k.get("repeat", 0):
                        continue
                    r, merged = self._reduced(kind, k.get("across", 0), taken)
                    taken = []
                    if merged:
                        valid = ([True] * len(x), *valid[1:])
                out.append((x, r, idx, ends, valid) if k.get("dst") else (r, y, idx, ends, valid))
            beats = out
        return beats

    def _reduced(self, kind: int, across: int, taken: list[tuple]) -> tuple[np.ndarray, bool]:
        """The value of a reduction over some beats, and whether it merges the lanes."""
        lanes = len(taken[0][0])
        if kind == Reduce.FSUM:
            elements = [int(v) if ok else 0 for r, valid in taken for v, ok in zip(r, valid)]
            return np.full(lanes, row_sum(elements), np.uint32), True
        floats = kind in (Reduce.FMAX, Reduce.FMIN)
        state = None
        for r, valid in taken:
            value = np.array([ordered(int(v)) for v in r]) if floats else r.view(np.int32).astype(np.int64)
            if across:
                value = np.where(valid, value, IDENTITY[kind])
            state = value if state is None else MERGE[kind](state, value)
        if across:
            state = np.full_like(state, MERGE[kind].reduce(state))
        if floats:
            state = np.where(state < 0, (-1 - state) | 1 << 31, state)
        return (state & 0xFFFFFFFF).astype(np.uint32), bool(across)

    def run(self, beats: list[tuple], f: dict) -> list[tuple]:
        for sub in range(f.get("wraps", 0) + 1):
            beats = self.columns(beats, f.get("ctx", 0) + sub)
        return beats

    def vector(self, f: dict) -> None:
        lanes, beats = self.c.vector_lanes, []
        for i3, i2, i1, i0 in itertools.product(*(range(f.get(f"n{i}", 1)) for i in (3, 2, 1, 0))):
            i = (i0, i1, i2, i3)
            k = i[f.get("idx_loop", 0)]
            valid = [f.get("channels", 0) == 0 or k * lanes + lane < f["channels"] for lane in range(lanes)]
            values, index = {}, 0
            for v in "yx":
                pixel, channel = (
                    f.get(f"{v}_{at}", 0) + sum(n * f.get(f"{v}_d{kind}{j}", 0) for j, n in enumerate(i))
                    for kind, at in (("p", "p0"), ("c", "c0"))
                )
                use = v == "x" or f.get("y_enable", 0)
                values[v] = self.read(f, v, pixel + index, channel, valid if use else [False] * lanes)
                index = int(values[v][0]) % (1 << f.get("x_gather", 0))
            ends = all(i[j] == f.get(f"n{j}", 1) - 1 for j in range(f.get("idx_loop", 0) + 1))
            beats.append((values["x"], values["y"], f.get("idx_base", 0) + k, ends, (valid,)))
        emitted = iter(self.run(beats, f))
        for j in itertools.product(*(range(f.get(f"m{i}", 1)) for i in (2, 1, 0))):
            x, _, _, _, (valid,) = next(emitted)
            pixel, channel = (
                f.get(f"o_{at}", 0) + sum(n * f.get(f"o_d{kind}{i}", 0) for i, n in enumerate(reversed(j)))
                for kind, at in (("p", "p0"), ("c", "c0"))
            )
            self.write(f, "o", pixel, channel, valid, x)
        assert next(emitted, None) is None

    def epilogue(self, f: dict, tiles: list[np.ndarray]) -> None:
        c, lanes = self.c, self.c.vector_lanes
        interleave = 1 << f.get("ilv", 0)
        halves = c.halves if f.get("depthwise") else 1
        for n, mt in itertools.product(range(f["n_tiles"]), range(f["m_tiles"])):
            tile, beats = tiles.pop(0), []
            used = f["t_last"] if mt == f["m_tiles"] - 1 else f["t_count"]
            assert len(tile) == used * halves
            loops = (range(used), range(c.rows), range(halves), range(c.acc_beats))
            for t, r, h, b in itertools.product(*loops):
                m = mt * f["t_count"] * c.rows + t // interleave * c.rows * interleave + r * interleave + t % interleave
                first = (n * halves + h) * c.cols + b * lanes
                x, valid = np.zeros(lanes, np.uint32), []
                for lane in range(lanes):
                    inside = b * lanes + lane < c.cols
                    in_channels = not f.get("channels") or first + lane < f["channels"]
                    valid.append(inside and m < f["m_count"] and in_channels)
                    if inside:
                        x[lane] = tile[t * halves + h, r, b * lanes + lane].view(np.uint32)
                at = (
                    f.get("res_p0", 0) + m,
                    f.get("res_c0", 0) + (0 if f.get("res_row") else self._bytes(f, "res", first)),
                )
                y = self.read(f, "res", *at, valid if f.get("res_enable") else [False] * lanes)
                place = f.get("out_p0", 0) + m, f.get("out_c0", 0) + self._bytes(f, "out", first)
                real = m < f["m_count"]
                idx = f.get("idx_base", 0) + (n * halves + h) * c.acc_beats + b
                beats.append((x, y, idx, b == c.acc_beats - 1, (valid, place, real)))
            for x, _, _, _, (valid, place, real) in self.run(beats, f):
                self.write(f, "out", *place, [v and real for v in valid], x)

    def _bytes(self, f: dict, view: str, elements: int) -> int:
        """Channel byte of an element; of KA elements each has one."""
        kind = f.get(f"{view}_type", 0)
        return elements if kind == DType.KA else elements // 2 if kind == DType.I4 else beat_size(kind, elements)
