"""INT8 weights with one scale a row: embedding, head, and matrices that 4-bit groups would change too much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace_host.kernels.group_weights import round_up


@dataclass(frozen=True, kw_only=True, eq=False)
class RowWeights:
    """Weights [rows, inputs] close to ``scale`` * code: int8 codes -127..127, fp32 scales [rows] exact in bf16."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]


def from_rows(weights: NDArray[np.float32]) -> RowWeights:
    """scale = up(largest / 127), up to the next bf16; code = rne(w / scale). A row of zeros has scale 1."""
    scale = round_up(np.abs(weights).max(axis=1) / np.float32(127))
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return RowWeights(codes=np.rint(weights / scale[:, None]).astype(np.int8), scale=scale)
