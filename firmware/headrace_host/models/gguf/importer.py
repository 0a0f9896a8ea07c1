"""From a GGUF file to a `LanguageModel`: architectures llama and qwen2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace_host.errors import ModelError
from headrace_host.models.gguf.metadata import Metadata
from headrace_host.models.gguf.reader import GgufFile, GgufTensor
from headrace_host.models.gguf.tokenizer import GgufTokenizer
from headrace_host.models.gguf.weights import SUPPORTED, GgufMatrix, dense
from headrace_host.models.language import (
    Dimensions,
    LanguageModel,
    Layer,
    Projection,
    Rotary,
    RotaryPairs,
)

_PAIRS = {"llama": RotaryPairs.interleaved, "qwen2": RotaryPairs.halves}
"""Supported architectures. Converters store Q and K of llama permuted for interleaved pairs, those of qwen2 as is."""

_AGAIN = "the file is damaged, fetch or convert it again"


def load_gguf(path: Path) -> LanguageModel:
    """Open the GGUF file ``path``; its matrices stay there until asked for.

    Raises:
        ModelError: when it is damaged, or holds an architecture, tensor or option that is not supported.
    """
    try:
        file = GgufFile(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return _Importer(file).model()


class _Importer:
    """One pass over the tensors of a file, each of which must have its place in the model."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._metadata = Metadata(file.name, file.metadata)
        self._left = dict(file.tensors)
        self._architecture = self._metadata.text("general.architecture")
        if self._architecture not in _PAIRS:
            raise self._metadata.error(
                f"architecture '{self._architecture}' is not supported; use a model of {' or '.join(_PAIRS)}"
            )
        if self._integer("expert_count", 0):
            raise self._metadata.error("mixtures of experts are not supported; use a dense model")
        self._dimensions = self._read_dimensions()

    def model(self) -> LanguageModel:
        """The whole model; a tensor that is left over is an error."""
        d = self._dimensions
        for tensor in self._left.values():
            if tensor.kind not in SUPPORTED:
                kinds = ", ".join(sorted(kind.name for kind in SUPPORTED))
                raise self._metadata.error(
                    f"tensor '{tensor.name}': type {tensor.kind.name} is not supported; convert to one of {kinds}"
                )
        embedding = self._matrix("token_embd", d.vocabulary, d.width, rows_only=True)
        tied = "output.weight" not in self._left
        head = embedding if tied else self._matrix("output", d.vocabulary, d.width, rows_only=True)
        found = LanguageModel(
            name=self._metadata.text("general.name", Path(self._file.name).stem),
            architecture=self._architecture,
            dimensions=d,
            rotary=self._rotary(),
            epsilon=self._number("attention.layer_norm_rms_epsilon"),
            embedding=embedding,
            layers=tuple(self._layer(f"blk.{index}") for index in range(d.layers)),
            output_norm=self._vector("output_norm.weight", d.width),
            head=head,
            tokenizer=GgufTokenizer(self._metadata),
        )
        if self._left:
            raise self._metadata.error(
                f"tensor '{next(iter(self._left))}' has no place in a {self._architecture} model; use a plain one"
            )
        return found

    def _read_dimensions(self) -> Dimensions:
        width, heads = self._extent("embedding_length"), self._extent("attention.head_count")
        embedding = self._tensor("token_embd.weight", take=False)
        found = Dimensions(
            layers=self._extent("block_count"),
            width=width,
            heads=heads,
            kv_heads=self._extent("attention.head_count_kv", heads),
            head_width=self._extent("attention.key_length", width // heads),
            hidden=self._extent("feed_forward_length"),
            vocabulary=embedding.shape[0],
            context=self._extent("context_length"),
        )
        if self._extent("attention.value_length", found.head_width) != found.head_width:
            raise self._metadata.error("keys and values of different widths are not supported; use another model")
        if heads % found.kv_heads or found.head_width % 2:
            raise self._metadata.error(
                f"{heads} heads of {found.head_width} cannot share {found.kv_heads} keys; {_AGAIN}"
            )
        return found

    def _rotary(self) -> Rotary:
        width = self._dimensions.head_width
        turned = self._extent("rope.dimension_count", width)
        if turned != width:
            raise self._metadata.error(f"{turned} of {width} elements of a head turn; only whole heads are supported")
        scaling = self._metadata.text(f"{self._architecture}.rope.scaling.type", "none")
        if scaling != "none":
            raise self._metadata.error(f"rotary scaling '{scaling}' is not supported; use a model without it")
        exponents = np.arange(0, width, 2).astype(np.float32) / np.float32(width)
        frequencies = np.float32(self._number("rope.freq_base", 10000.0)) ** -exponents
        if "rope_freqs.weight" in self._left:
            factors = self._vector("rope_freqs.weight", width // 2)
            if (factors <= 0).any():
                raise self._metadata.error(f"tensor 'rope_freqs.weight' is not positive; {_AGAIN}")
            frequencies = frequencies / factors
        return Rotary(pairs=_PAIRS[self._architecture], frequencies=frequencies.astype(np.float32))

    def _layer(self, prefix: str) -> Layer:
        d = self._dimensions
        queries, keys = d.heads * d.head_width, d.kv_heads * d.head_width
        return Layer(
            attention_norm=self._vector(f"{prefix}.attn_norm.weight", d.width),
            query=self._projection(f"{prefix}.attn_q", queries, d.width),
            key=self._projection(f"{prefix}.attn_k", keys, d.width),
            value=self._projection(f"{prefix}.attn_v", keys, d.width),
            attention_out=self._projection(f"{prefix}.attn_output", d.width, queries),
            hidden_norm=self._vector(f"{prefix}.ffn_norm.weight", d.width),
            gate=self._projection(f"{prefix}.ffn_gate", d.hidden, d.width),
            up=self._projection(f"{prefix}.ffn_up", d.hidden, d.width),
            down=self._projection(f"{prefix}.ffn_down", d.width, d.hidden),
        )

    def _projection(self, name: str, outputs: int, inputs: int) -> Projection:
        bias = self._vector(f"{name}.bias", outputs) if f"{name}.bias" in self._left else None
        return Projection(weights=self._matrix(name, outputs, inputs), bias=bias)

    def _matrix(self, name: str, outputs: int, inputs: int, *, rows_only: bool = False) -> GgufMatrix:
        tensor = self._shaped(f"{name}.weight", (outputs, inputs))
        return GgufMatrix(file=self._file, tensor=tensor, rows_only=rows_only)

    def _vector(self, name: str, size: int) -> NDArray[np.float32]:
        return dense(self._file, self._shaped(name, (size,))).copy()

    def _shaped(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise self._metadata.error(f"tensor '{name}' has shape {tensor.shape}, expected {shape}; {_AGAIN}")
        return tensor

    def _tensor(self, name: str, *, take: bool = True) -> GgufTensor:
        if name not in self._left:
            raise self._metadata.error(f"tensor '{name}' is missing; {_AGAIN}")
        return self._left.pop(name) if take else self._left[name]

    def _extent(self, key: str, default: int | None = None) -> int:
        value = self._integer(key, default)
        if value < 1:
            raise self._metadata.error(f"'{self._architecture}.{key}' is {value}; {_AGAIN}")
        return value

    def _integer(self, key: str, default: int | None = None) -> int:
        return self._metadata.integer(f"{self._architecture}.{key}", default)

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._metadata.number(f"{self._architecture}.{key}", default)
        if not np.isfinite(value) or value <= 0:
            raise self._metadata.error(f"'{self._architecture}.{key}' is {value}; {_AGAIN}")
        return value
