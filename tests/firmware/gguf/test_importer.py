"""Models of both architectures are described as their files say; what is not supported is named."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from headrace_host.errors import ModelError
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language import RotaryPairs


def test_llama(tmp_path: Path, files: ModuleType) -> None:
    contents = files.tensors("llama", np.random.default_rng(1))
    model = load_gguf(files.write(tmp_path / "m.gguf", "llama", contents))
    d = model.dimensions
    assert (d.layers, d.width, d.heads, d.kv_heads, d.head_width, d.hidden) == (2, 64, 4, 2, 16, 96)
    assert (d.vocabulary, d.context) == (len(files.VOCABULARY), 128) and model.tied
    assert model.name == "small llama" and model.rotary.pairs is RotaryPairs.interleaved
    assert model.epsilon == pytest.approx(1e-5)
    assert model.rotary.frequencies == pytest.approx(100.0 ** (-np.arange(8) / 8))
    assert [m.name for m in model.matrices][:3] == ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight"]
    assert len(model.matrices) == 15 and isinstance(model.embedding.machine(), RowWeights)
    layer, stored = model.layers[1], contents["blk.1.ffn_down.weight"]
    assert np.array_equal(layer.attention_norm, contents["blk.1.attn_norm.weight"])
    assert layer.down.weights.shape == (64, 96) and layer.down.bias is None
    expected = gguf.quants.dequantize(gguf.quants.quantize(stored, Kind.Q4_1), Kind.Q4_1)
    assert np.array_equal(layer.down.weights.dense(), expected)


def test_qwen2(tmp_path: Path, files: ModuleType) -> None:
    contents = files.tensors("qwen2", np.random.default_rng(2), tied=False)
    model = load_gguf(files.write(tmp_path / "m.gguf", "qwen2", contents))
    assert model.architecture == "qwen2" and model.rotary.pairs is RotaryPairs.halves and not model.tied
    layer = model.layers[0]
    for projection, name in ((layer.query, "q"), (layer.key, "k"), (layer.value, "v")):
        assert np.array_equal(projection.bias, contents[f"blk.0.attn_{name}.bias"])
    assert layer.gate.bias is None
    assert model.head.name == "output.weight" and isinstance(model.head.machine(), RowWeights)
    assert len(model.matrices) == 16


def test_wide_heads_and_frequency_factors(tmp_path: Path, files: ModuleType) -> None:
    contents = files.tensors("llama", np.random.default_rng(3))
    contents["rope_freqs.weight"] = np.array([1, 1, 1, 1, 2, 4, 8, 8], np.float32)
    model = load_gguf(files.write(tmp_path / "m.gguf", "llama", contents))
    assert model.rotary.frequencies == pytest.approx(100.0 ** (-np.arange(8) / 8) / contents["rope_freqs.weight"])
    contents["rope_freqs.weight"][3] = 0
    with pytest.raises(ModelError, match=r"'rope_freqs\.weight' is not positive"):
        load_gguf(files.write(tmp_path / "m.gguf", "llama", contents))
    rng = np.random.default_rng(4)
    for layer in range(2):
        for name, shape in (("q", (128, 64)), ("k", (64, 64)), ("v", (64, 64)), ("output", (64, 128))):
            contents[f"blk.{layer}.attn_{name}.weight"] = rng.normal(size=shape).astype(np.float32)
    contents["rope_freqs.weight"] = np.ones(16, np.float32)
    changed = {"llama.attention.key_length": 32, "llama.attention.value_length": 32}
    model = load_gguf(files.write(tmp_path / "m.gguf", "llama", contents, changed=changed))
    assert model.dimensions.head_width == 32


def test_weights_are_read_when_asked_for(tmp_path: Path, files: ModuleType) -> None:
    contents = files.tensors("llama", np.random.default_rng(5))
    contents["blk.0.ffn_up.weight"][3, 3] = np.nan
    path = files.write(tmp_path / "m.gguf", "llama", contents, kind=Kind.F16)
    model = load_gguf(path)
    model.layers[0].gate.weights.machine()
    with pytest.raises(ModelError, match=r"m.gguf: tensor 'blk.0.ffn_up.weight'.*damaged"):
        model.layers[0].up.weights.machine()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "rotary scaling 'yarn'"),
        ({"llama.rope.dimension_count": 8}, "8 of 16 elements"),
        ({"llama.attention.value_length": 8}, "different widths"),
        ({"llama.attention.head_count_kv": 3}, "cannot share 3"),
        ({"llama.attention.head_count": 0}, "head_count' is 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon' is nan"),
        ({"llama.block_count": None}, "block_count' is missing"),
        ({"llama.block_count": "two"}, "of type str, not int"),
        ({"llama.block_count": 1}, r"'blk.1.\S+' has no place in a llama model"),
        ({"llama.block_count": 3}, "'blk.2.attn_norm.weight' is missing"),
        ({"llama.feed_forward_length": 64}, r"'blk.0.ffn_gate.weight' has shape \(96, 64\), expected \(64, 64\)"),
    ],
)
def test_what_is_not_supported(tmp_path: Path, files: ModuleType, changed: dict[str, Any], text: str) -> None:
    path = files.small(tmp_path, changed=changed)
    with pytest.raises(ModelError, match=text) as caught:
        load_gguf(path)
    assert str(caught.value).startswith("llama.gguf: ")


def test_foreign_architectures_and_types(tmp_path: Path, files: ModuleType) -> None:
    contents = files.tensors("llama", np.random.default_rng(6))
    with pytest.raises(ModelError, match="architecture 'mamba' is not supported; use a model of llama or qwen2"):
        load_gguf(files.write(tmp_path / "m.gguf", "mamba", contents))
    contents["blk.0.ffn_up.weight"] = np.zeros((96, 36), np.uint8)
    path = files.write(tmp_path / "m.gguf", "llama", contents, kinds={"blk.0.ffn_up.weight": Kind.IQ4_NL})
    with pytest.raises(ModelError, match=r"tensor 'blk.0.ffn_up.weight': type IQ4_NL is not supported; .*Q4_1"):
        load_gguf(path)
