"""INT8 rows follow the rule, one weight at a time."""

from __future__ import annotations

import numpy as np

from headrace_host.kernels.row_weights import from_rows

F = np.float32


def test_rows_rule() -> None:
    rng = np.random.default_rng(9)
    values = (rng.normal(size=(24, 100)) * rng.uniform(0.01, 1, (24, 1))).astype(F)
    values[3] = 0
    values[4, 0] = 127.5  # the scale rounds up
    found = from_rows(values)
    for row, codes, scale in zip(values, found.codes, found.scale):
        largest = np.abs(row).max() / F(127)
        bits = (int(largest.view(np.uint32)) + 0xFFFF) & 0xFFFF0000
        expected = np.uint32(bits).view(F) if largest else F(1)
        assert scale == expected and codes.tolist() == [int(np.rint(w / expected)) for w in row]
    assert np.abs(found.codes).max() <= 127 and not found.codes[3].any()
