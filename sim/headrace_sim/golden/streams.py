"""Beats of elements between the scratchpad and the dataflow array: sources and sinks of every element type.

A beat is L consecutive elements of one pixel. Below `pixel` and `byte` (of the beat's first element, c0 not yet added)
have shape [..., 1], values and `used` [..., L].
"""

from dataclasses import dataclass

import numpy as np

from headrace.isa import Cause, DType

from .errors import Fault
from .scratchpad import Geometry, Scratchpad, View

__all__ = ["Clamp", "Place", "beat_byte", "read", "write"]

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


@dataclass(frozen=True)
class Place:
    """Where the elements of beats are in the scratchpad.

    `at` [..., L] counts elements of the type (of I4 the bytes that hold them), or is [..., L, size] byte positions when
    elements straddle words. `bad` (None: none) tells which are out of range, `word` the word addresses, both broadcast.
    """

    dtype: DType
    at: np.ndarray
    bad: np.ndarray | None
    word: np.ndarray

    @classmethod
    def of(cls, geometry: Geometry, view: View, pixel: np.ndarray, byte: np.ndarray, lanes: int) -> "Place":
        """The place of beats of `lanes` elements; nothing is checked."""
        lane = np.arange(lanes)
        if view.dtype == DType.I4:
            return cls(view.dtype, *geometry.locate(view, pixel, byte + lane // 2))
        size = _STORED[view.dtype].itemsize
        if size == 1 or not (geometry.word_bytes % size or ((byte + view.c0) % size).any()):
            at, bad, word = geometry.locate(view, pixel, byte + lane * size)
            return cls(view.dtype, at if size == 1 else at // size, bad, word)
        each = byte[..., None] + lane[:, None] * size + np.arange(size)
        return cls(view.dtype, *geometry.locate(view, pixel[..., None], each))

    def __getitem__(self, lanes: slice | int) -> "Place":
        """Some of the lanes of an unstraddled place."""
        bad = None if self.bad is None else np.broadcast_to(self.bad, self.at.shape)[..., lanes]
        return Place(self.dtype, self.at[..., lanes], bad, np.broadcast_to(self.word, self.at.shape)[..., lanes])

    def checked(self, used: np.ndarray) -> np.ndarray:
        """`at`; 0 where out of range and not `used`.

        Raises:
            Fault: RANGE with the word address of the first used position (in C order) that is outside.
        """
        if self.bad is None:
            return self.at
        used = np.broadcast_to(used if self.at.ndim == used.ndim else used[..., None], self.at.shape)
        bad = self.bad & used
        if bad.any():
            raise Fault(Cause.RANGE, int(np.broadcast_to(self.word, bad.shape)[bad][0]) & 0xFFFFFFFF)
        return np.where(self.bad, 0, self.at)


def read(pad: Scratchpad, place: Place, used: np.ndarray) -> np.ndarray:
    """Elements int32 [..., L] as a source makes them; 0 where not `used`.

    Raises:
        Fault: RANGE.
    """
    at = place.checked(used)
    if place.dtype == DType.I4:
        pair = pad.flat[at].astype(np.int32)
        values = ((pair >> (np.arange(used.shape[-1]) % 2 * 4) & 15) ^ 8) - 8
    else:
        stored = _STORED[place.dtype]
        raw = pad.flat.view(stored)[at] if at.ndim == used.ndim else pad.flat[at].view(stored)[..., 0]
        values = raw.astype(np.int32, copy=False)
        if place.dtype == DType.BF16:
            values = values << 16
    return (values if used.all() else np.where(used, values, 0)).astype(np.int32, copy=False)


def write(pad: Scratchpad, place: Place, x: np.ndarray, used: np.ndarray, clamp: Clamp) -> None:
    """What a sink makes of x (int32), where `used`.

    Raises:
        Fault: RANGE.
    """
    match place.dtype:
        case DType.KA:
            some = np.any(used, axis=-1)
            at = place[0].checked(some)
            pad.put_shifts(at[some], np.broadcast_to(x, used.shape)[..., 0][some] & 7)
        case DType.I4:
            _write_nibbles(pad, place[::2], _codes(place.dtype, x, clamp), used)
        case _:
            stored = _STORED[place.dtype]
            at = place.checked(used)
            codes = np.broadcast_to(_codes(place.dtype, x, clamp), used.shape).astype(stored, copy=False)
            if not used.all():
                at, codes = at[used], codes[used]
            if at.ndim == codes.ndim:
                pad.put(at, codes)
            else:
                pad.put(at.reshape(-1), np.ascontiguousarray(codes).reshape(-1).view(np.uint8))


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


def _write_nibbles(pad: Scratchpad, place: Place, codes: np.ndarray, used: np.ndarray) -> None:
    """Whole bytes: where one lane of a byte is used, the other's code is 0 unless it is used, too."""
    odd = used.shape[-1] % 2
    widths = [(0, 0)] * (used.ndim - 1) + [(0, odd)]
    pairs = np.pad(used, widths).reshape(*used.shape[:-1], -1, 2)
    nibbles = np.pad(np.where(used, codes & 15, 0), widths).reshape(pairs.shape)
    some = np.any(pairs, axis=-1)
    at = np.broadcast_to(place.checked(some), some.shape)
    pad.put(at[some], (nibbles[..., 0] | nibbles[..., 1] << 4)[some].astype(np.uint8))
