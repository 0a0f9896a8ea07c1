"""The feed-forward part of a layer: down(silu(gate(n)) * up(n)), a chunk of hidden channels at a time.

While the dataflow array makes silu(gate) * up of one chunk, the MAC array multiplies the next.
"""

from __future__ import annotations

from headrace.isa import DType
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.linear import Linear, Rows
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import silu_product
from headrace_host.transformer.quantiser import Quantised, Quantiser
from headrace_host.transformer.tensors import VECTORS, Arena, Tensor


class FeedForward:
    """Emits the commands for ``rows`` rows; ``chunk`` n tiles of gate and up at a time."""

    def __init__(
        self,
        image: KernelImage,
        arena: Arena,
        quantiser: Quantiser,
        layers: tuple[Linear, Linear, Linear],
        *,
        rows: int,
        chunk: int,
    ) -> None:
        """``layers``: gate, up, down."""
        self._image, self._arena, self._quantiser = image, arena, quantiser
        self._gate, self._up, self._down = layers
        self._rows, self._chunk = rows, chunk

    def _chunks(self) -> list[tuple[int, int]]:
        """(first n tile, n tiles) of each chunk."""
        tiles = self._gate.tiles
        return [(first, min(self._chunk, tiles - first)) for first in range(0, tiles, self._chunk)]

    def stream_first(self) -> None:
        """Send the first chunk's weights to the ring."""
        self._stream(*self._chunks()[0])

    def _stream(self, first: int, tiles: int) -> None:
        for layer in (self._gate, self._up):
            layer.stream(self._rows, first, tiles)

    def stream_down(self) -> None:
        """Send the weights of the last product to the ring."""
        self._down.stream(self._rows)

    def hidden(self, x: Quantised, first_row: int) -> tuple[Tensor, Tensor]:
        """silu(gate) * up of rows from ``first_row`` on, bf16, and the largest of their groups. The first chunk's
        weights are on their way."""
        config, arena, chunks = self._image.config, self._arena, self._chunks()
        hidden = arena.new("hidden", self._rows, self._gate.outputs, DType.BF16, bank=VECTORS)
        groups = self._quantiser.groups(self._rows, self._gate.outputs)
        # Two pairs by turns: one is still being read while the next chunk is multiplied.
        pairs = [self._pair(chunks[0][1]) for _ in chunks[:2]]
        for number, (first, tiles) in enumerate(chunks):
            parts = pairs[number % 2]
            for layer, part in zip((self._gate, self._up), parts):
                rows = Rows(codes=x.codes.view, scales=x.scales.view, out=part.view, count=self._rows, first=first_row)
                layer.multiply(rows, first, tiles)
            if number + 1 < len(chunks):
                self._stream(*chunks[number + 1])
            else:
                self.stream_down()
            gate, up = (RowTensor(view=part.view, kind=DType.BF16, steps=((1, 0),)) for part in parts)
            out = RowTensor(view=hidden.view, kind=DType.BF16, channel=2 * first * config.cols, steps=((1, 0),))
            elements = min(tiles * config.cols, self._gate.outputs - first * config.cols)
            emit_rows(self._image, silu_product, {"gate": gate, "up": up}, [out], rows=(self._rows,), elements=elements)
            self._quantiser.measure(hidden, groups, self._rows, first * config.cols, elements)
        arena.free(*(part for pair in pairs for part in pair))
        return hidden, groups

    def _pair(self, tiles: int) -> list[Tensor]:
        """Results of gate and up for ``tiles`` n tiles."""
        channels = tiles * self._image.config.cols
        return [self._arena.new(n, self._rows, channels, DType.BF16, bank=VECTORS) for n in ("gate", "up")]

    def project(self, hidden: Tensor, groups: Tensor) -> Tensor:
        """down(hidden), bf16; what `hidden` gave is freed."""
        x = self._quantiser.emit(hidden, self._rows, groups)
        self._arena.free(hidden, groups)
        out = self._arena.new("feed-forward result", self._rows, self._down.outputs, DType.BF16, bank=VECTORS)
        self._down.multiply(Rows(codes=x.codes.view, scales=x.scales.view, out=out.view, count=self._rows))
        self._arena.free(x.codes, x.scales)
        return out
