"""A language model of the Llama family, as importers describe it and kernels and references read it.

Weights stay where they are until asked for: `Matrix.machine` converts one to what the MAC array multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace_host.kernels.group_weights import GroupWeights
from headrace_host.kernels.row_weights import RowWeights

MachineWeights = GroupWeights | RowWeights

_GROUP_BITS = 4 + (8 + 8) / 32
_GROUP_CHANNEL_BITS = 16 + 3
_ROW_BITS, _ROW_CHANNEL_BITS = 8, 16


class RotaryPairs(StrEnum):
    """Which two elements of a head of width n turn together, by the i-th angle."""

    interleaved = "interleaved"  # 2i and 2i + 1
    halves = "halves"  # i and i + n / 2


class Matrix(Protocol):
    """Weights [outputs, inputs] of y = W x."""

    @property
    def name(self) -> str:
        """Name in the file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""

    @property
    def stored_type(self) -> str:
        """How the file holds the weights."""

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""

    def dense(self) -> NDArray[np.float32]:
        """What the file's weights stand for."""

    def machine(self) -> MachineWeights:
        """What the machine multiplies."""


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Extents of a model; ``heads`` share ``kv_heads`` keys and values in order, ``heads / kv_heads`` each."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    context: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotary:
    """Rotary positions: element pairs turn by position * ``frequencies[i]``, fp32 [head_width / 2]."""

    pairs: RotaryPairs
    frequencies: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """y = W x + bias, fp32; no bias is None."""

    weights: Matrix
    bias: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """x += attention(norm(x)); x += down(silu(gate(n)) * up(n)) with n = norm(x). Norms are RMS, weights fp32."""

    attention_norm: NDArray[np.float32]
    query: Projection
    key: Projection
    value: Projection
    attention_out: Projection
    hidden_norm: NDArray[np.float32]
    gate: Projection
    up: Projection
    down: Projection

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All seven, in the order in which they are computed."""
        return (self.query, self.key, self.value, self.attention_out, self.gate, self.up, self.down)


class Tokenizer(Protocol):
    """Text to token numbers and back."""

    @property
    def stop(self) -> frozenset[int]:
        """Tokens that end an answer."""

    def encode(self, text: str, *, control: bool = False, begin: bool = True) -> list[int]:
        """Tokens of ``text``, after the token that begins a text where the model has one (``begin``).

        With ``control``, names of control tokens in the text are these tokens; give it only text of a chat template.
        """

    def decode(self, tokens: list[int], *, control: bool = False) -> str:
        """Text of ``tokens``; control tokens are left out unless ``control``."""

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The text that asks for an answer to ``messages`` of "role" and "content"; encode it with `encode_chat`."""

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Tokens of `chat`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A decoder of `Layer`s between an embedding and a head, which are one matrix when ``tied``."""

    name: str
    architecture: str
    dimensions: Dimensions
    rotary: Rotary
    epsilon: float
    embedding: Matrix
    layers: tuple[Layer, ...]
    output_norm: NDArray[np.float32]
    head: Matrix
    tokenizer: Tokenizer

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one matrix."""
        return self.head is self.embedding

    @property
    def matrices(self) -> list[Matrix]:
        """Every matrix once, in the order of use."""
        body = [p.weights for layer in self.layers for p in layer.projections]
        return [self.embedding, *body, *([] if self.tied else [self.head])]


def machine_bits(weights: MachineWeights) -> int:
    """Bits that ``weights`` take on the machine, codes and scales."""
    outputs, inputs = weights.codes.shape
    if isinstance(weights, RowWeights):
        return outputs * (_ROW_BITS * inputs + _ROW_CHANNEL_BITS)
    return outputs * (int(_GROUP_BITS * inputs) + _GROUP_CHANNEL_BITS)


def machine_dense(weights: MachineWeights) -> NDArray[np.float32]:
    """What ``weights`` stand for, fp32."""
    codes, unit = weights.codes.astype(np.float32), weights.scale[:, None]
    if isinstance(weights, RowWeights):
        return codes * unit
    sd, sm, kc = weights.groups.sd, weights.groups.sm, weights.groups.kc
    assert sd is not None and sm is not None and kc is not None
    outputs, groups = sd.shape
    grouped = codes.reshape(outputs, groups, -1)
    grouped *= sd.astype(np.float32)[:, :, None]
    grouped += np.ldexp(sm.astype(np.float32), kc.astype(np.int32)[:, None])[:, :, None]
    return grouped.reshape(codes.shape) * unit
