"""Q4_1 weights as codes with group scales: what the MAC array multiplies and the epilogue scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.errors import ModelError
from headrace_host.models.graph import GroupScales

_LARGEST_SHIFT = 7
"""Of an offset; the table of shifts has 3 bits a channel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupWeights:
    """Weights [filters, inputs] close to ``scale`` * (sd * code + (sm << kc)) of each group of 32 inputs.

    ``codes`` are int8 -8..7; ``scale`` is fp32 [filters], its values exact in bf16.
    """

    codes: NDArray[np.int8]
    groups: GroupScales
    scale: NDArray[np.float32]


def round_up(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Positive fp32 values (or 0) rounded up to bf16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)


def from_q4_1(
    q: NDArray[np.uint8], d: NDArray[np.float16 | np.float32], m: NDArray[np.float16 | np.float32]
) -> GroupWeights:
    """Codes ``q`` [filters, inputs] 0..15, scales ``d`` and minima ``m`` [filters, inputs / 32] of w = d q + m.

    Every step is fp32. A channel without scales (all ``d`` 0, so that its codes are 0) is described by its minima.

    Raises:
        ModelError: when shapes do not match or a scale is negative or not finite.
    """
    filters, inputs = q.shape
    if inputs % GROUP_CODES or d.shape != (filters, inputs // GROUP_CODES) or m.shape != d.shape:
        raise ModelError(f"Q4_1 weights {q.shape} have scales {d.shape} and minima {m.shape}; one a group of 32")
    if not (np.isfinite(d) & (d >= 0) & np.isfinite(m)).all():
        raise ModelError("Q4_1 weights have a negative or infinite scale; the file is damaged")
    steps, minima = d.astype(np.float32), m.astype(np.float32)
    scale = _channel_scale(steps, minima)
    unit = scale[:, None]
    sd = np.clip(np.rint(steps / unit), 1, 255).astype(np.float32)
    centres = minima + np.float32(8) * (unit * sd)
    largest = np.abs(centres).max(axis=1)
    kc = np.zeros(filters, np.uint8)
    for shift in range(_LARGEST_SHIFT):
        kc += (largest > np.float32(127) * scale * np.float32(1 << shift)).astype(np.uint8)
    sm = np.clip(np.rint(centres / np.ldexp(unit, kc[:, None].astype(np.int32))), -127, 127)
    return GroupWeights(
        codes=q.astype(np.int8) - np.int8(8),
        groups=GroupScales(sd=sd.astype(np.uint8), sm=sm.astype(np.int8), kc=kc),
        scale=scale,
    )


def _channel_scale(steps: NDArray[np.float32], minima: NDArray[np.float32]) -> NDArray[np.float32]:
    """D: the largest step over 255, never 0; without steps the largest minimum over 127 takes its place."""
    scale = round_up(steps.max(axis=1) / np.float32(255))
    scale = np.where(scale > 0, scale, round_up(np.abs(minima).max(axis=1) / np.float32(127)))
    return np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
