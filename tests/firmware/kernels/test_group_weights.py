"""Group scales of Q4_1 weights follow the rule, one channel and group at a time."""

from __future__ import annotations

import numpy as np
import pytest

from headrace_host.errors import ModelError
from headrace_host.kernels.group_weights import GroupWeights, from_q4_1

F = np.float32


def random_q4_1(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = (rng.uniform(0.2, 1, (12, 4)) * 10.0 ** rng.uniform(-4, 0, (12, 1))).astype(np.float16)
    m = (d * rng.uniform(-14, 2, d.shape)).astype(np.float16)
    m[3] *= np.float16(8)  # offsets far beyond the codes: larger shifts
    return rng.integers(0, 16, (12, 128)).astype(np.uint8), d, m


def dequantised(w: GroupWeights) -> np.ndarray:
    assert w.groups.sd is not None and w.groups.sm is not None and w.groups.kc is not None
    scales = np.repeat(w.groups.sd, 32, axis=1).astype(float)
    offsets = np.repeat(w.groups.sm.astype(float) * 2.0 ** w.groups.kc[:, None], 32, axis=1)
    return w.scale[:, None] * (scales * w.codes + offsets)


def test_rule() -> None:
    q, d, m = random_q4_1(np.random.default_rng(5))
    found = from_q4_1(q, d, m)
    assert found.groups.sd is not None and found.groups.sm is not None and found.groups.kc is not None
    assert np.array_equal(found.codes, q.astype(int) - 8)
    for n in range(len(q)):
        bits = int((F(d[n].max()) / F(255)).view(np.uint32))
        scale = np.uint32((bits + 0xFFFF) & 0xFFFF0000).view(F)
        sd = [F(min(max(np.rint(F(v) / scale), 1), 255)) for v in d[n]]
        centres = [F(v) + F(8) * (scale * s) for v, s in zip(m[n], sd, strict=True)]
        kc = next(k for k in range(8) if max(abs(c) for c in centres) <= F(127) * scale * F(2**k))
        sm = [min(max(np.rint(c / (scale * F(2**kc))), -127), 127) for c in centres]
        assert found.scale[n] == scale and found.groups.kc[n] == kc
        assert found.groups.sd[n].tolist() == sd and found.groups.sm[n].tolist() == sm
    assert len(set(found.groups.kc.tolist())) > 2


def test_values_stay_close() -> None:
    q, d, m = random_q4_1(np.random.default_rng(6))
    exact = np.repeat(d.astype(float), 32, 1) * q + np.repeat(m.astype(float), 32, 1)
    found = from_q4_1(q, d, m)
    assert found.groups.kc is not None
    unit = found.scale * (8 + 2.0**found.groups.kc)  # half a step of sd times 15 codes, half a step of sm
    assert (np.abs(dequantised(found) - exact) <= unit[:, None]).all()


def test_channels_without_scales() -> None:
    """Constant groups have d = 0 and codes 0; nothing is divided by zero, and an all-zero channel is zero."""
    q, d = np.zeros((3, 64), np.uint8), np.zeros((3, 2), np.float16)
    m = np.array([[0, 0], [0.5, -0.25], [0, 3e-3]], np.float16)
    found = from_q4_1(q, d, m)
    assert np.isfinite(found.scale).all() and (found.scale > 0).all()
    values, exact = dequantised(found), np.repeat(m.astype(float), 32, 1)
    assert not values[0].any()
    assert (np.abs(values - exact).max(1) <= np.abs(exact).max(1) / 100).all()


def test_damaged_weights() -> None:
    q, d, m = random_q4_1(np.random.default_rng(7))
    with pytest.raises(ModelError, match="one a group of 32"):
        from_q4_1(q[:, :100], d, m)
    with pytest.raises(ModelError, match="negative or infinite"):
        from_q4_1(q, -d, m)
