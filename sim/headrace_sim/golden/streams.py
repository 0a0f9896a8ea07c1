"""Beats of elements between the scratchpad and the dataflow array: sources and sinks of every element type.

A beat is L consecutive elements of one pixel. Below `pixel` and `byte` (of the beat's first element, c0 not yet added)
have shape [..., 1], values and `used` [..., L], all broadcast.
"""

from dataclasses import dataclass

import numpy as np

from headrace.isa import DType

from .scratchpad import Scratchpad, View

__all__ = ["Clamp", "beat_byte", "read", "write"]

_STORED: dict[DType, np.dtype] = {
    DType.I8: np.dtype("i1"),
    DType.B32: np.dtype("<i4"),
    DType.U8: np.dtype("u1"),
    DType.I16: np.dtype("<i2"),
    DType.BF16: np.dtype("<u2"),
    DType.KA: np.dtype("u1"),
}


@dataclass(frozen=True)
class Clamp:
    """What the sinks of codes add and clamp to."""

    zp: int
    lo: int
    hi: int


def beat_byte(dtype: DType, element: np.ndarray) -> np.ndarray:
    """Channel byte at which the beat of an EPILOGUE command starts whose first element is `element`."""
    return element // 2 if dtype == DType.I4 else element * _STORED[dtype].itemsize


def read(pad: Scratchpad, view: View, pixel: np.ndarray, byte: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Elements int32 [..., L] as a source makes them; 0 where not `used`.

    Raises:
        Fault: RANGE.
    """
    lane = np.arange(used.shape[-1])
    if view.dtype == DType.I4:
        pair = pad.flat[pad.locate(view, pixel, byte + lane // 2, used)].astype(np.int32)
        values = ((pair >> (lane % 2 * 4) & 15) ^ 8) - 8
    else:
        stored = _STORED[view.dtype]
        at = _positions(pad, view, pixel, byte + lane * stored.itemsize, used, stored.itemsize)
        raw = pad.flat[at].view(stored)[..., 0]
        values = raw.astype(np.int32)
        if view.dtype == DType.BF16:
            values = values << 16
    return np.where(used, values, 0).astype(np.int32, copy=False)


def write(
    pad: Scratchpad,
    view: View,
    pixel: np.ndarray,
    byte: np.ndarray,
    x: np.ndarray,
    used: np.ndarray,
    clamp: Clamp,
) -> None:
    """What a sink makes of x (int32), where `used`.

    Raises:
        Fault: RANGE.
    """
    match view.dtype:
        case DType.KA:
            _write_shifts(pad, view, pixel, byte, x, used)
        case DType.I4:
            _write_nibbles(pad, view, pixel, byte, _codes(view.dtype, x, clamp), used)
        case _:
            stored = _STORED[view.dtype]
            size = stored.itemsize
            at = _positions(pad, view, pixel, byte + np.arange(used.shape[-1]) * size, used, size)
            codes = np.broadcast_to(_codes(view.dtype, x, clamp), used.shape)[used].astype(stored)
            pad.put(at[used].reshape(-1), codes.view(np.uint8))


def _codes(dtype: DType, x: np.ndarray, clamp: Clamp) -> np.ndarray:
    """What is stored, as integers whose low bits count."""
    if dtype == DType.B32:
        return x
    if dtype == DType.BF16:
        return _bf16(x)
    low, high = clamp.lo, clamp.hi
    if dtype == DType.U8:
        low, high = low % 256, high % 256
    elif dtype == DType.I16:
        low, high = -(1 << 15), (1 << 15) - 1
    return np.minimum(np.maximum(x.astype(np.int64) + clamp.zp, low), high)


def _bf16(bits: np.ndarray) -> np.ndarray:
    """fp32 patterns rounded to nearest even; a NaN becomes 0x7FC0, a subnormal a zero of its sign."""
    wide = bits.view(np.uint32).astype(np.int64)
    magnitude = wide & 0x7FFFFFFF
    rounded = (wide + 0x7FFF + (wide >> 16 & 1)) >> 16
    rounded = np.where(magnitude < 0x00800000, wide >> 31 << 15, rounded)
    return np.where(magnitude > 0x7F800000, 0x7FC0, rounded)


def _positions(
    pad: Scratchpad, view: View, pixel: np.ndarray, byte: np.ndarray, used: np.ndarray, size: int
) -> np.ndarray:
    """Flat positions of the bytes of elements: [..., L, size]."""
    within = np.arange(size)
    if size == 1 or not ((byte + view.c0) % size).any():  # then no element straddles words
        return pad.locate(view, pixel, byte, used)[..., None] + within
    return pad.locate(view, pixel[..., None], byte[..., None] + within, used[..., None])


def _write_shifts(
    pad: Scratchpad, view: View, pixel: np.ndarray, byte: np.ndarray, x: np.ndarray, used: np.ndarray
) -> None:
    some = np.any(used, axis=-1)
    at = pad.locate(view, pixel[..., 0], byte[..., 0], some)
    pad.put_shifts(at[some], np.broadcast_to(x, used.shape)[..., 0][some] & 7)


def _write_nibbles(
    pad: Scratchpad, view: View, pixel: np.ndarray, byte: np.ndarray, codes: np.ndarray, used: np.ndarray
) -> None:
    """Whole bytes: where one lane of a byte is used, the other's code is 0 unless it is used, too."""
    odd = used.shape[-1] % 2
    widths = [(0, 0)] * (used.ndim - 1) + [(0, odd)]
    pairs = np.pad(used, widths).reshape(*used.shape[:-1], -1, 2)
    nibbles = np.pad(np.where(used, codes & 15, 0), widths).reshape(pairs.shape)
    some = np.any(pairs, axis=-1)
    at = pad.locate(view, pixel, byte + np.arange(some.shape[-1]), some)
    pad.put(at[some], (nibbles[..., 0] | nibbles[..., 1] << 4)[some].astype(np.uint8))
