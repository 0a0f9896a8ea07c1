"""Room in scratchpad, column memories, contexts and DDR for a random program."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.config import NpuConfig
from headrace.isa import DType

from .streams import element_bits

__all__ = ["Ddr", "NoRoom", "OnChip", "Tensor"]


class NoRoom(Exception):
    """The machine or the DDR image is too small for what was asked."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A view whose words are its own: `pixels` pixels of `channels` bytes, from byte `c0`, in `planes` planes.

    `dtype` is the type of its elements; `channels` counts bytes. `shifted`: its words may have activation shifts.
    """

    base: int
    plane: int
    shift: int
    p0: int
    pixels: int
    channels: int
    planes: int
    c0: int = 0
    dtype: DType = DType.I8
    shifted: bool = False

    def view(self, prefix: str = "", *, typed: bool = False) -> dict[str, int]:
        """The view's fields in a command."""
        fields = {"base": self.base, "plane": self.plane, "shift": self.shift, "p0": self.p0, "c0": self.c0}
        return {f"{prefix}{k}": v for k, v in (fields | ({"type": self.dtype} if typed else {})).items()}


class _Intervals:
    """Free places of [0, size)."""

    def __init__(self, size: int) -> None:
        self.free = [(0, size)]

    def take(self, rng: np.random.Generator, length: int) -> int:
        fits = [(low, high) for low, high in self.free if high - low >= length]
        if not fits:
            raise NoRoom
        low, high = fits[int(rng.integers(len(fits)))]
        places = (low, high - length, int(rng.integers(low, high - length + 1)))
        at = places[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]
        self.remove(at, at + length)
        return at

    def remove(self, first: int, end: int) -> None:
        out = []
        for low, high in self.free:
            if first >= high or end <= low:
                out.append((low, high))
            else:
                out += [(a, b) for a, b in ((low, first), (end, high)) if a < b]
        self.free = out


class OnChip:
    """What is in use on the machine while the layers of a phase run; a new phase starts with a new one."""

    def __init__(self, config: NpuConfig, rng: np.random.Generator, keep: tuple[Tensor, ...] = ()) -> None:
        self._config = config
        self._rng = rng
        self._spad = _Intervals(config.bank_words)
        self._column_words = [_Intervals(config.column_words) for _ in range(config.columns)]
        self._offset_shifts = _Intervals(config.kc_words)
        self._contexts = _Intervals(config.contexts)
        for tensor in keep:
            self._spad.remove(tensor.base, tensor.base + tensor.planes * tensor.plane)

    @property
    def _places(self) -> list[_Intervals]:
        return [self._spad, self._contexts, self._offset_shifts, *self._column_words]

    def snapshot(self) -> list[list[tuple[int, int]]]:
        """What is free, for `restore`."""
        return [list(place.free) for place in self._places]

    def restore(self, free: list[list[tuple[int, int]]]) -> None:
        """Undo every allocation since the snapshot."""
        for place, before in zip(self._places, free):
            place.free = list(before)

    def tensor(self, *, pixels: int, channels: int, dtype: DType = DType.I8, aligned: bool = False) -> Tensor:
        """Room for a tensor with a random layout; `aligned`: its channels start on a word."""
        config, rng = self._config, self._rng
        shift = int(rng.choice([0, 1, 2, 3], p=[0.5, 0.3, 0.15, 0.05]))
        p0 = int(rng.integers(0, 4)) if rng.random() < 0.3 else 0
        c0 = 0
        if not aligned and rng.random() < 0.25:
            size = max(1, element_bits(dtype) // 8) if rng.random() < 0.7 else 1  # elements may straddle words
            c0 = int(rng.integers(0, config.word_bytes // size + 1)) * size
        planes = -(-(c0 + channels) // config.word_bytes)
        words = -(-(p0 + pixels) // (config.rows << shift)) << shift
        plane = words + (int(rng.integers(0, 3)) if rng.random() < 0.3 else 0)
        base = self._spad.take(rng, planes * plane)
        return Tensor(
            base=base, plane=plane, shift=shift, p0=p0, c0=c0,
            pixels=pixels, channels=channels, planes=planes, dtype=dtype,
        )  # fmt: skip

    def column_words(self, column: int, count: int) -> int:
        """First of `count` words of a column's memory."""
        return self._column_words[column].take(self._rng, count)

    def offset_shifts(self, count: int) -> int:
        """First of `count` words of the table of group offset shifts."""
        return self._offset_shifts.take(self._rng, count)

    def contexts(self, count: int) -> int:
        """First of `count` contexts."""
        return self._contexts.take(self._rng, count)


class Ddr:
    """The DDR image: a command ring, an area that is only read, and one that is written; random bytes everywhere."""

    PAGE = 4096

    def __init__(
        self, rng: np.random.Generator, *, base: int, ring_bytes: int, input_bytes: int, output_bytes: int
    ) -> None:
        self._rng = rng
        self.base = base
        self.input = base + self._pages(ring_bytes)
        self.output = self.input + self._pages(input_bytes)
        self.end = self.output + self._pages(output_bytes)
        self._next_input, self._next_output = self.input, self.output
        self.contents: npt.NDArray[np.uint8] = rng.integers(0, 256, self.end - base, dtype=np.uint8)

    def _pages(self, size: int) -> int:
        return -(-size // self.PAGE) * self.PAGE

    def place_input(self, length: int, *, align: int = 1) -> int:
        """Address of `length` bytes that are only read."""
        self._next_input, at = self._place(self._next_input, length, align, self.output)
        return at

    def place_output(self, length: int, *, align: int = 1) -> int:
        """Address of `length` bytes that are written."""
        self._next_output, at = self._place(self._next_output, length, align, self.end)
        return at

    def put(self, address: int, values: npt.NDArray[np.uint8] | bytes) -> None:
        """Set initial contents."""
        at = address - self.base
        self.contents[at : at + len(values)] = np.frombuffer(bytes(values), np.uint8)

    def _place(self, after: int, length: int, align: int, end: int) -> tuple[int, int]:
        at = after + (int(self._rng.integers(0, 70)) if self._rng.random() < 0.7 else 0)
        at += -at % align
        if at + length > end:
            raise NoRoom
        return at + length, at
