"""Tensors in the banked scratchpad: views, the words they occupy and the command fields that describe them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.config import NpuConfig
from headrace.isa import DType
from headrace_host.compiler.stream import Access, Space

ELEMENT_BYTES = {DType.I8: 1, DType.U8: 1, DType.KA: 1, DType.I16: 2, DType.BF16: 2, DType.B32: 4}
"""Bytes of an element; a KA element stands for a byte of its word."""


def plane_words(config: NpuConfig, pixels: int, shift: int) -> int:
    """Words of one channel plane in every bank."""
    run = config.rows << shift
    return -(-pixels // run) << shift


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor of ``pixels`` by ``channels`` bytes: the address map is that of the architecture's views.

    ``base`` is its first word and ``plane`` the words between planes of 2K channels; ``shift`` is log2 of the pixels
    that share a bank. Its channel 0 is channel byte ``offset`` of the words (not 0 for a part of a tensor).
    """

    base: int
    plane: int
    shift: int
    pixels: int
    channels: int
    offset: int = 0

    def part(self, offset: int, channels: int) -> View:
        """``channels`` channel bytes from ``offset`` on."""
        return replace(self, channels=channels, offset=self.offset + offset)

    def fields(self, prefix: str, *, pixel: int = 0, channel: int = 0, typed: bool = False) -> dict[str, int]:
        """The view fields of a command, from ``pixel`` and ``channel`` on; elements are int8 where typed."""
        p = f"{prefix}_" if prefix else ""
        fields = {
            f"{p}base": self.base,
            f"{p}plane": self.plane,
            f"{p}p0": pixel,
            f"{p}shift": self.shift,
            f"{p}c0": self.offset + channel,
        }
        return fields | ({f"{p}type": 0} if typed else {})

    def access(
        self,
        config: NpuConfig,
        *,
        write: bool,
        pixels: tuple[int, int] | None = None,
        channels: tuple[int, int] | None = None,
    ) -> Access:
        """What reading or writing a range of pixels and channels touches."""
        first, last = pixels or (0, self.pixels)
        low, high = (self.offset + channel for channel in channels or (0, self.channels))
        run = config.rows << self.shift
        start = (first // run) << self.shift
        end = ((last - 1) // run + 1) << self.shift
        spans = tuple(
            (self.base + q * self.plane + start, self.base + q * self.plane + end)
            for q in range(low // config.word_bytes, -(-high // config.word_bytes))
        )
        return Access(Space.SPAD, spans, write)


def tensor_words(config: NpuConfig, pixels: int, channels: int, shift: int) -> int:
    """Words that a tensor occupies in every bank."""
    return plane_words(config, pixels, shift) * -(-channels // config.word_bytes)


def make_view(config: NpuConfig, base: int, pixels: int, channels: int, shift: int) -> View:
    """The view of a tensor whose planes follow each other from word ``base``."""
    return View(base=base, plane=plane_words(config, pixels, shift), shift=shift, pixels=pixels, channels=channels)
