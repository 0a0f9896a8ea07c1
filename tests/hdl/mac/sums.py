"""What the MAC array shall compute: phases of random codes, scales, and the accumulators after them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headrace.config import Precision

INT32 = range(-(1 << 31), 1 << 31)
ACT_BITS = {Precision.A8W8: 8, Precision.A8W4: 8, Precision.A4W4: 4}
WEIGHT_BITS = {Precision.A8W8: 8, Precision.A8W4: 4, Precision.A4W4: 4}


def decode(lanes: np.ndarray, bits: int, count: int, unsigned: bool) -> np.ndarray:
    """Codes (int64) of 16-bit lanes: `count` of `bits` bits, the first one lowest, in the last axis."""
    fields = (lanes[..., None].astype(np.int64) >> (bits * np.arange(count))) & ((1 << bits) - 1)
    codes = fields if unsigned else fields - ((fields >> (bits - 1)) << bits)
    return codes.reshape(*lanes.shape[:-1], -1)


def rounding_shift(x: int, n: int) -> int:
    return (x + (1 << n >> 1)) >> n


@dataclass
class Sum:
    """A sum of phases and where it goes; `a` [phase, row, lane], `w` [phase, column, lane], `dw` [row, column, tap]."""

    mode: Precision
    a: np.ndarray
    w: np.ndarray
    act_unsigned: bool = False
    weight_unsigned: bool = False
    scaled: bool = False
    overwrite: bool = True
    buffer: int = 0
    t: int = 0
    dw: np.ndarray | None = None
    ka: list[int] = field(default_factory=list)
    sd: list[int] = field(default_factory=list)
    sm: list[int] = field(default_factory=list)
    kc: list[int] = field(default_factory=list)

    def term(self, r: int, c: int) -> int:
        """What is added to the accumulator of (r, c)."""
        a = decode(self.a[:, r], ACT_BITS[self.mode], self.mode.rate, self.act_unsigned)
        w = decode(self.w[:, c], WEIGHT_BITS[self.mode], self.mode.rate, self.weight_unsigned)
        if self.dw is not None:
            taps = decode(self.dw[r, c], 8, 1, self.act_unsigned)
            a = np.zeros_like(a)
            a[:, : len(taps)] = taps
        psum, xsum = int((a * w).sum()), int(a.sum())
        if not self.scaled:
            return psum
        if self.mode is Precision.A8W8:
            return rounding_shift(8 * psum, self.ka[r])
        return rounding_shift(self.sd[c] * psum + ((self.sm[c] * xsum) << self.kc[c]), self.ka[r])


def accumulate(sums: list[Sum], rows: int, cols: int) -> tuple[dict[tuple[int, int, int, int], int], list[bool]]:
    """Accumulators (buffer, t, row, column) after all sums, and whether each sum made one leave int32."""
    accumulators: dict[tuple[int, int, int, int], int] = {}
    overflows = []
    for s in sums:
        overflow = False
        for r in range(rows):
            for c in range(cols):
                key = (s.buffer, s.t, r, c)
                total = s.term(r, c) + (0 if s.overwrite else accumulators[key])
                overflow |= total not in INT32
                accumulators[key] = (total + (1 << 31)) % (1 << 32) - (1 << 31)
        overflows.append(overflow)
    return accumulators, overflows


def random_sum(rng: np.random.Generator, rows: int, cols: int, lanes: int, taps: int) -> Sum:
    """A sum of any kind the array takes, to accumulator 0 of buffer 0."""
    mode = Precision(int(rng.integers(3)))
    scaled = bool(rng.integers(2)) and lanes * mode.rate <= (16 if mode is Precision.A8W8 else 32)
    most = (16 if mode is Precision.A8W8 else 32) // (lanes * mode.rate) if scaled else 2
    depthwise = taps > 0 and mode is Precision.A8W8 and not scaled and bool(rng.integers(2))
    phases = 1 if depthwise else int(rng.integers(1, most + 1))
    return Sum(
        mode=mode,
        scaled=scaled,
        a=rng.integers(0, 1 << 16, (phases, rows, lanes)),
        w=rng.integers(0, 1 << 16, (phases, cols, lanes)),
        dw=rng.integers(0, 1 << 8, (rows, cols, taps)) if depthwise else None,
        act_unsigned=bool(rng.integers(2)),
        weight_unsigned=bool(rng.integers(2)),
        ka=rng.integers(0, 8, rows).tolist(),
        sd=rng.integers(0, 256, cols).tolist(),
        sm=rng.integers(-128, 128, cols).tolist(),
        kc=rng.integers(0, 8, cols).tolist(),
    )
