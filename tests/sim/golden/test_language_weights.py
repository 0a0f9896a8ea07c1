"""The number format of language models, from its definition in floating point to exact accumulators."""

import numpy as np

from headrace.config import machine
from headrace.isa import Dest
from headrace_sim.golden import GoldenMachine

from .loops import run_ok

SEED = 21


def quantised(d: np.ndarray, m: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, int]:
    """D, sd, sm of every group and kc of an output channel, from Q4_1's d and m (fp32) of its groups."""
    top = np.float32(d.max() / np.float32(255))
    scale = ((top.view(np.uint32) + 0xFFFF) & 0xFFFF0000).view(np.float32)  # bf16 rounded up
    sd = np.clip(np.rint(d / scale), 1, 255)
    offset = m + 8 * (scale * sd)
    kc = next(k for k in range(8) if np.abs(offset).max() <= 127 * scale * 2**k)
    sm = np.clip(np.rint(offset / (scale * 2**kc)), -127, 127)
    return float(scale), sd.astype(int), sm.astype(int), kc


def test_language_model_weights() -> None:
    """GGUF Q4_1 weights of a row of 1,536, recentred, times INT8 activations with a shift per 32: exact integers."""
    config, groups = machine("base"), 48
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    cols, entry_bytes = config.cols, (config.entry_beats + config.scale_beats) * config.axi_bytes
    q = rng.integers(0, 16, (cols, groups, 32))
    d = rng.uniform(0.001, 0.02, (cols, groups)).astype(np.float16).astype(np.float32)
    low = (-d * rng.uniform(4, 12, d.shape)).astype(np.float16).astype(np.float32)
    scales = [quantised(d[c], low[c]) for c in range(cols)]
    a, ka = rng.integers(-127, 128, (2, groups, 32)), rng.integers(0, 8, (2, groups))
    entries = np.zeros((groups, entry_bytes), np.uint8)
    for g in range(groups):
        codes = (q[:, g] - 8) & 15
        entries[g, : cols * 16] = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1)
        at = config.entry_beats * config.axi_bytes
        entries[g, at : at + 2 * cols] = [v & 255 for _, sd, sm, _ in scales for v in (int(sd[g]), int(sm[g]))]
    m = GoldenMachine(config, ddr_bytes=1 << 18)
    m.write_ddr(0x8000, entries)
    m.write_ddr(0x4000, np.array([sum(kc << 4 * c for c, (*_, kc) in enumerate(scales))], np.uint32))
    for token in range(2):  # plane q of pixel `token`
        m.scratchpad.data[token, : 2 * groups] = a[token].astype(np.int8).view(np.uint8).reshape(-1, 16)
        m.scratchpad.ka[token, : 2 * groups] = np.repeat(ka[token], 2)
    tokens = {"in_plane": 1, "in_w": 2, "out_w": 2, "m_count": 2}
    run_ok(
        m,
        ("LOAD", {"ddr": 0x4000, "n0": 4, "dest": Dest.KC, "element": 5}),
        ("WEIGHT", {"ddr": 0x8000, "entries": groups, "scales": 1}),
        ("MAC", tokens | {"mode": 1, "scales": 1, "cw": 2 * groups, "kc_base": 5}),
    )
    for token in range(2):
        for c, (scale, sd, sm, kc) in enumerate(scales):
            acc = 0
            for g in range(groups):
                psum = sum(int(x) * (int(w) - 8) for x, w in zip(a[token, g], q[c, g]))
                value = int(sd[g]) * psum + ((int(sm[g]) * int(a[token, g].sum())) << kc)
                shift = int(ka[token, g])
                acc += (value + (1 << shift - 1)) >> shift if shift else value
            assert m.accumulators[0][0, token, c] == acc
            weights = d[c, :, None].astype(float) * q[c] + low[c, :, None]
            exact = (weights * a[token] * 2.0 ** -ka[token, :, None]).sum()
            assert abs(acc * scale - exact) < 1e-3 * np.abs(weights * a[token]).sum()
