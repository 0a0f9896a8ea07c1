"""One layer of a transformer: x += attention(norm(x)); x += feed_forward(norm(x)).

Weights are sent to the ring one product ahead of what multiplies them, so that DDR is busy while the dataflow array
works. Keys and values are projected before queries: what appends them to the cache runs beside the queries' product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.isa import DType
from headrace_host.kernels.group_weights import GroupWeights
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.linear import Linear, Rows
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import rms_norm
from headrace_host.models.graph import GroupScales
from headrace_host.models.language import Dimensions, MachineWeights, Projection, Rotary
from headrace_host.models.language import Layer as LayerWeights
from headrace_host.transformer.attention import Attention
from headrace_host.transformer.cache import Cache
from headrace_host.transformer.feed_forward import FeedForward
from headrace_host.transformer.quantiser import STEP, Quantised, Quantiser
from headrace_host.transformer.residual import Residual
from headrace_host.transformer.rotary import Turn, half_order
from headrace_host.transformer.tensors import VECTORS, Arena, Tensor


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a run of ``tokens`` tokens is cut: rows of the feed-forward part, n tiles of gate and up at a time; whether
    the residual stays in the scratchpad."""

    tokens: int
    hidden_rows: int
    hidden_tiles: int
    keep: bool


class TransformerLayer:
    """Emits the commands of one layer."""

    def __init__(
        self,
        image: KernelImage,
        arena: Arena,
        weights: LayerWeights,
        name: str,
        *,
        dimensions: Dimensions,
        rotary: Rotary,
        epsilon: float,
        cache: Cache,
        turn: Turn,
        bias: Tensor | None,
        tiling: Tiling,
    ) -> None:
        self._image, self._arena, self._weights, self._epsilon = image, arena, weights, epsilon
        self._tiling, self._width, self._heads = tiling, dimensions.width, dimensions.kv_heads
        self._quantiser = Quantiser(image, arena)
        self._name = name
        d, tokens, rows = dimensions, tiling.tokens, tiling.hidden_rows

        def layer(part: str, projection: Projection, rows: int, heads: int = 0) -> Linear:
            order = half_order(rotary, heads, d.head_width) if heads else None
            machine, bias = ordered(projection, order)
            return Linear(image.memory, image.constants, image.image, f"{name} {part}", machine, rows, bias)

        self._query = layer("query", weights.query, tokens, d.heads)
        self._key = layer("key", weights.key, tokens, d.kv_heads)
        self._value = layer("value", weights.value, tokens)
        self._out = layer("attention out", weights.attention_out, tokens)
        self._attention = Attention(image, arena, cache, turn, tokens=tokens, shared=d.heads // d.kv_heads, bias=bias)
        parts = (layer("gate", weights.gate, rows), layer("up", weights.up, rows), layer("down", weights.down, rows))
        self._feed_forward = FeedForward(image, arena, self._quantiser, parts, rows=rows, chunk=tiling.hidden_tiles)
        self.linear = (self._key, self._value, self._query, self._out, *parts)

    def stream_projections(self) -> None:
        """Send the weights of keys, values and (for one token) queries to the ring, well ahead of `emit`."""
        queries = (self._query,) if self._attention.streams_ahead else ()
        for layer in (self._key, self._value, *queries):
            layer.stream(self._tiling.tokens)

    def emit(self, residual: Residual, ahead: Callable[[], None]) -> None:
        """Run the layer on ``residual``; ``ahead`` sends to the ring what is multiplied next."""
        queries = self._attend(residual)
        tokens, rows = self._tiling.tokens, self._tiling.hidden_rows
        self._begin("attention out")
        self._feed_forward.stream_first()
        x = self._quantiser.emit(queries, tokens)
        self._arena.free(queries)
        residual.add(self._multiply(self._out, x), 0, tokens)
        self._free(x)
        for first in range(0, tokens, rows):
            self._begin("hidden norm")
            x = self._normalised(residual, self._weights.hidden_norm, first, rows)
            self._begin("hidden")
            hidden = self._feed_forward.hidden(x, 0)  # and its groups
            self._free(x)
            if first + rows < tokens:
                self._feed_forward.stream_first()
            else:
                ahead()
            self._begin("down")
            residual.add(self._feed_forward.project(*hidden), first, rows)

    def _begin(self, part: str) -> None:
        self._image.begin(f"{self._name} {part}")

    def _attend(self, residual: Residual) -> Tensor:
        """What attention makes of the rows, before its projection."""
        self._begin("attention norm")
        x = self._normalised(residual, self._weights.attention_norm, 0, self._tiling.tokens)
        self._begin("keys, values")
        keys, values = self._multiply(self._key, x), self._multiply(self._value, x, high=True)
        attention, heads = self._attention, self._heads
        self._begin("keys")
        attention.append_keys(keys)
        self._arena.free(keys)
        self._begin("queries")
        queries = self._arena.new("queries", self._tiling.tokens, self._query.outputs, DType.BF16, bank=VECTORS)
        # Queries of two key heads are under way while values go to the cache, further ones beside softmax.
        ahead = heads if attention.streams_ahead else min(2, heads)
        for head in range(ahead):
            self._project_queries(x, queries, head)
        self._begin("values")
        attention.append_values(values)
        self._arena.free(values)
        attention.stream()
        if attention.streams_ahead:
            self._out.stream(self._tiling.tokens)
        self._begin("attention")
        attention.mix(queries, lambda head: self._project_queries(x, queries, head) if head >= ahead else None)
        self._free(x)
        if not attention.streams_ahead:
            self._out.stream(self._tiling.tokens)
        return queries

    def _project_queries(self, x: Quantised, queries: Tensor, head: int) -> None:
        """Queries of the heads that share key head ``head``; their weights are sent to the ring here if not before."""
        tokens, layer = self._tiling.tokens, self._query
        tiles = layer.tiles // self._heads
        if not self._attention.streams_ahead:
            layer.stream(tokens, head * tiles, tiles)
        part = layer.outputs // self._heads * queries.size
        out = queries.view.part(head * part, part)
        rows = Rows(codes=x.codes.view, scales=x.scales.view, out=out, count=tokens)
        layer.multiply(rows, head * tiles, tiles)

    def _normalised(self, residual: Residual, weights: NDArray[np.float32], first: int, count: int) -> Quantised:
        rows = residual.read(first, count)
        n = self._arena.new("normalised", count, self._width, DType.BF16, bank=VECTORS)
        x, out = (RowTensor(view=t.view, kind=DType.BF16, steps=STEP) for t in (rows, n))
        kernel = rms_norm(weights, self._epsilon)
        emit_rows(self._image, kernel, {"x": x}, [out], rows=(count,), elements=self._width)
        residual.release(rows)
        result = self._quantiser.emit(n, count)
        self._arena.free(n)
        return result

    def _multiply(self, layer: Linear, x: Quantised, *, high: bool = False) -> Tensor:
        tokens = self._tiling.tokens
        out = self._arena.new(layer.name, tokens, layer.outputs, DType.BF16, bank=VECTORS, high=high)
        layer.multiply(Rows(codes=x.codes.view, scales=x.scales.view, out=out.view, count=tokens))
        return out

    def _free(self, x: Quantised) -> None:
        self._arena.free(x.codes, x.scales)


def ordered(
    projection: Projection, order: NDArray[np.int64] | None
) -> tuple[MachineWeights, NDArray[np.float32] | None]:
    """Weights and bias of a projection, its outputs in ``order``."""
    weights, bias = projection.weights.machine(), projection.bias
    if order is None:
        return weights, bias
    turned = None if bias is None else bias[order]
    if isinstance(weights, RowWeights):
        return RowWeights(codes=weights.codes[order], scale=weights.scale[order]), turned
    sd, sm, kc = weights.groups.sd, weights.groups.sm, weights.groups.kc
    assert sd is not None and sm is not None and kc is not None
    groups = GroupScales(sd=sd[order], sm=sm[order], kc=kc[order])
    return GroupWeights(codes=weights.codes[order], groups=groups, scale=weights.scale[order]), turned
