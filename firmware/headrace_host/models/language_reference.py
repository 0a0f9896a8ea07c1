"""A language model in fp32: the answer that the machine's numerics are measured against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace_host.models.language import LanguageModel, Layer, Matrix, Projection, Rotary, RotaryPairs

Values = NDArray[np.float32]


@dataclass(eq=False)
class KeyValueCache:
    """Keys and values [tokens, kv heads, head width] of each layer for the tokens seen so far."""

    keys: list[Values] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return len(self.keys[0]) if self.keys else 0

    def append(self, layer: int, keys: Values, values: Values) -> tuple[Values, Values]:
        """Add new tokens of ``layer``; return those of all tokens."""
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = np.concatenate([self.keys[layer], keys])
            self.values[layer] = np.concatenate([self.values[layer], values])
        return self.keys[layer], self.values[layer]


class LanguageReference:
    """fp32 forward passes of the dequantised weights, which are kept: 4 bytes a weight."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._dense: dict[str, Values] = {}

    def logits(self, tokens: list[int], cache: KeyValueCache | None = None) -> Values:
        """Logits [tokens, vocabulary]; with ``cache`` the tokens follow those in it, and are added to it."""
        cache = KeyValueCache() if cache is None else cache
        position = np.arange(cache.tokens, cache.tokens + len(tokens))
        x = self._weights(self.model.embedding)[tokens]
        for index, layer in enumerate(self.model.layers):
            x = x + self._attention(index, layer, self._norm(x, layer.attention_norm), position, cache)
            n = self._norm(x, layer.hidden_norm)
            gate = self._project(layer.gate, n)
            with np.errstate(over="ignore"):  # exp(-gate) may be infinite: silu is 0 there
                hidden = gate / (1 + np.exp(-gate)) * self._project(layer.up, n)
            x = x + self._project(layer.down, hidden)
        return self._norm(x, self.model.output_norm) @ self._weights(self.model.head).T

    def _attention(
        self, index: int, layer: Layer, n: Values, position: NDArray[np.int64], cache: KeyValueCache
    ) -> Values:
        d, rotary = self.model.dimensions, self.model.rotary
        query = self._project(layer.query, n).reshape(len(n), d.heads, d.head_width)
        key = self._project(layer.key, n).reshape(len(n), d.kv_heads, d.head_width)
        value = self._project(layer.value, n).reshape(key.shape)
        keys, values = cache.append(index, rotate(key, position, rotary), value)
        shared = d.heads // d.kv_heads
        keys, values = keys.repeat(shared, axis=1), values.repeat(shared, axis=1)
        scores = rotate(query, position, rotary).transpose(1, 0, 2) @ keys.transpose(1, 2, 0)
        scores *= np.float32(d.head_width**-0.5)
        scores[:, np.arange(len(keys)) > position[:, None]] = -np.inf
        p = np.exp(scores - scores.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        mixed = p @ values.transpose(1, 0, 2)
        return self._project(layer.attention_out, mixed.transpose(1, 0, 2).reshape(len(n), -1))

    def _norm(self, x: Values, weights: Values) -> Values:
        mean = (x * x).mean(axis=1, keepdims=True, dtype=np.float32)
        root: Values = np.sqrt(mean + np.float32(self.model.epsilon))
        return x / root * weights

    def _project(self, projection: Projection, x: Values) -> Values:
        y = x @ self._weights(projection.weights).T
        return y if projection.bias is None else y + projection.bias

    def _weights(self, matrix: Matrix) -> Values:
        if matrix.name not in self._dense:
            self._dense[matrix.name] = matrix.dense()
        return self._dense[matrix.name]


def rotate(x: Values, position: NDArray[np.int64], rotary: Rotary) -> Values:
    """``x`` [tokens, heads, head width], its pairs turned by the angles of each token's position."""
    angles = position[:, None].astype(np.float32) * rotary.frequencies
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    first, second = pair_slices(rotary.pairs, x.shape[2])
    turned = np.empty_like(x)
    turned[..., first] = x[..., first] * cos - x[..., second] * sin
    turned[..., second] = x[..., second] * cos + x[..., first] * sin
    return turned


def pair_slices(pairs: RotaryPairs, width: int) -> tuple[slice, slice]:
    """First and second elements of the pairs of a head."""
    if pairs is RotaryPairs.interleaved:
        return slice(0, width, 2), slice(1, width, 2)
    return slice(0, width // 2), slice(width // 2, width)


def negative_log_likelihoods(logits: Values, tokens: list[int]) -> NDArray[np.float64]:
    """Of each token after the first, given those before; ``logits`` are those of ``tokens``."""
    rows = logits[:-1].astype(np.float64)
    largest = rows.max(axis=1)
    total = np.log(np.exp(rows - largest[:, None]).sum(axis=1)) + largest
    return total - rows[np.arange(len(rows)), tokens[1:]]


def perplexity(logits: Values, tokens: list[int]) -> float:
    """exp of the mean `negative_log_likelihoods`."""
    return float(np.exp(negative_log_likelihoods(logits, tokens).mean()))
