"""Small random GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers.pre_tokenizers import ByteLevel

BYTES = sorted(ByteLevel.alphabet())
MERGES = ["1 2", "t h", "th e", "Ġ the"]
CONTROL = ["<|begin|>", "<|end|>", "<|say|>"]
VOCABULARY = [*BYTES, *(merge.replace(" ", "") for merge in MERGES), *CONTROL]
BEGIN, END, SAY = (VOCABULARY.index(name) for name in CONTROL)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|say|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|say|>{% endif %}"
)
LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN = 2, 64, 4, 2, 96


def tensors(architecture: str, rng: np.random.Generator, *, tied: bool = True) -> dict[str, np.ndarray]:
    """fp32 tensors of a model by name; matrices are [outputs, inputs]."""

    def matrix(outputs: int, inputs: int) -> np.ndarray:
        return (rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)

    def vector(size: int, centre: float) -> np.ndarray:
        return (centre + 0.2 * rng.normal(size=size)).astype(np.float32)

    kv = WIDTH // HEADS * KV_HEADS
    found = {"token_embd.weight": matrix(len(VOCABULARY), WIDTH), "output_norm.weight": vector(WIDTH, 1)}
    if not tied:
        found["output.weight"] = matrix(len(VOCABULARY), WIDTH)
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": vector(WIDTH, 1),
            "attn_q.weight": matrix(WIDTH, WIDTH),
            "attn_k.weight": matrix(kv, WIDTH),
            "attn_v.weight": matrix(kv, WIDTH),
            "attn_output.weight": matrix(WIDTH, WIDTH),
            "ffn_norm.weight": vector(WIDTH, 1),
            "ffn_gate.weight": matrix(HIDDEN, WIDTH),
            "ffn_up.weight": matrix(HIDDEN, WIDTH),
            "ffn_down.weight": matrix(WIDTH, HIDDEN),
        }
        if architecture == "qwen2":
            block |= {"attn_q.bias": vector(WIDTH, 0), "attn_k.bias": vector(kv, 0), "attn_v.bias": vector(kv, 0)}
        found |= {f"blk.{layer}.{name}": values for name, values in block.items()}
    return found


def keys(architecture: str) -> dict[str, Any]:
    """Metadata of a model and its tokenizer."""
    types = [1] * (len(VOCABULARY) - len(CONTROL)) + [3] * len(CONTROL)
    return {
        "general.name": f"small {architecture}",
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.feed_forward_length": HIDDEN,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.rope.freq_base": 100.0,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": VOCABULARY,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": BEGIN,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(
    path: Path,
    architecture: str,
    contents: dict[str, np.ndarray],
    *,
    changed: dict[str, Any] | None = None,
    kind: Kind = Kind.Q4_1,
    embedding: Kind = Kind.Q8_0,
    kinds: dict[str, Kind] | None = None,
) -> Path:
    """A file of ``contents``: matrices as ``kind``, embedding and head as ``embedding``, vectors in fp32.

    ``changed`` replaces metadata, None removes a key; ``kinds`` chooses for single tensors (uint8 content is stored
    as it is).
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (keys(architecture) | (changed or {})).items():
        if value is not None:
            _add(writer, key, value)
    for name, values in contents.items():
        matrix = embedding if name in ("token_embd.weight", "output.weight") else kind
        chosen = (kinds or {}).get(name, Kind.F32 if values.ndim == 1 else matrix)
        stored = values if values.dtype == np.uint8 else gguf.quants.quantize(values, chosen)
        writer.add_tensor(name, stored, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def small(folder: Path, architecture: str = "llama", seed: int = 1, **options: Any) -> Path:
    """A file of a small random model."""
    contents = tensors(architecture, np.random.default_rng(seed))
    return write(folder / f"{architecture}.gguf", architecture, contents, **options)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        kinds[type(value)](key, value)
