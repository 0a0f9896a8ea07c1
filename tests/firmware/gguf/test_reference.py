"""The fp32 forward pass equals one written token by token in fp64; a cache changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language import LanguageModel, Projection, RotaryPairs
from headrace_host.models.language_reference import KeyValueCache, LanguageReference, perplexity


def turned(x: np.ndarray, position: int, model: LanguageModel) -> np.ndarray:
    """One head as complex numbers, turned."""
    half, angles = len(x) // 2, position * model.rotary.frequencies.astype(float)
    if model.rotary.pairs is RotaryPairs.interleaved:
        z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * angles)
        return np.stack([z.real, z.imag], axis=1).reshape(-1)
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag])


def apply(projection: Projection, x: np.ndarray) -> np.ndarray:
    y = projection.weights.dense().astype(float) @ x
    return y if projection.bias is None else y + projection.bias


def normed(x: np.ndarray, weights: np.ndarray, model: LanguageModel) -> np.ndarray:
    return x / np.sqrt((x * x).mean() + model.epsilon) * weights


def slow_logits(model: LanguageModel, tokens: list[int]) -> np.ndarray:
    """Token by token and head by head."""
    d = model.dimensions
    seen: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in model.layers]
    rows = []
    for position, token in enumerate(tokens):
        x = model.embedding.dense()[token].astype(float)
        for layer, cached in zip(model.layers, seen):
            n = normed(x, layer.attention_norm, model)
            q, k, v = (apply(p, n).reshape(-1, d.head_width) for p in (layer.query, layer.key, layer.value))
            cached.append((np.stack([turned(head, position, model) for head in k]), v))
            mixed = []
            for head in range(d.heads):
                group = head * d.kv_heads // d.heads
                query = turned(q[head], position, model)
                scores = np.array([keys[group] @ query for keys, _ in cached]) / np.sqrt(d.head_width)
                p = np.exp(scores) / np.exp(scores).sum()
                mixed.append(sum(weight * values[group] for weight, (_, values) in zip(p, cached)))
            x = x + apply(layer.attention_out, np.concatenate(mixed))
            n = normed(x, layer.hidden_norm, model)
            gate = apply(layer.gate, n)
            x = x + apply(layer.down, gate / (1 + np.exp(-gate)) * apply(layer.up, n))
        rows.append(model.head.dense().astype(float) @ normed(x, model.output_norm, model))
    return np.stack(rows)


@pytest.fixture(params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest, tmp_path: Path, files: ModuleType) -> LanguageModel:
    return load_gguf(files.small(tmp_path, request.param))


def random_tokens(model: LanguageModel, count: int) -> list[int]:
    return np.random.default_rng(3).integers(0, model.dimensions.vocabulary, count).tolist()


def test_forward(model: LanguageModel) -> None:
    tokens = random_tokens(model, 7)
    expected = slow_logits(model, tokens)
    found = LanguageReference(model).logits(tokens)
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_cache(model: LanguageModel) -> None:
    tokens, reference, cache = random_tokens(model, 12), LanguageReference(model), KeyValueCache()
    parts = [reference.logits(tokens[:5], cache)]
    parts += [reference.logits([token], cache) for token in tokens[5:8]]
    parts += [reference.logits(tokens[8:], cache)]
    whole = reference.logits(tokens)
    assert cache.tokens == 12 and np.abs(np.concatenate(parts) - whole).max() < 1e-5 * np.abs(whole).max()


def test_perplexity() -> None:
    assert perplexity(np.zeros((4, 50), np.float32), [1, 2, 3, 4]) == pytest.approx(50)
    certain = np.full((3, 4), -1000, np.float32)
    certain[[0, 1], [2, 3]] = 1000  # of tokens 1 and 2; the last row predicts nothing
    assert perplexity(certain, [0, 2, 3]) == pytest.approx(1)
