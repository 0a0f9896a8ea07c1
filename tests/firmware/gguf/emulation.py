"""The machine's numerics of a whole language model in numpy: every step fp32 or integer, values stored as bf16.

Weights are those of `Matrix.machine`. Where the rules leave a choice: quotients are products with `recip`, products
are taken from left to right, a bias is added in fp32 before the result is stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_host.kernels.group_weights import GroupWeights, round_up
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.models.language import LanguageModel, Layer, MachineWeights, Matrix, Projection
from headrace_host.models.language_reference import pair_slices

F = np.float32
Values = NDArray[np.float32]
Codes = NDArray[np.int8]
Sums = NDArray[np.int32]
GROUP, UNIT, GUARD = 32, 16, 8
"""Codes that share an activation shift; codes of INT8 weights that are shifted together, and what they are times."""

_RECIPROCALS = np.rint(65536 / (1 + np.arange(33) / 32))
_EIGHTHS = 1 + np.arange(17) / 16
_ROOTS = np.rint(65536 / np.sqrt(np.stack([_EIGHTHS, 2 * _EIGHTHS])))
_POWERS = (np.rint(256 * 2 ** (np.arange(9) / 8)) / 256).astype(F)
_LOG2_E = F(np.log2(np.e))


def bf16(x: Values) -> Values:
    """Rounded to the nearest bf16, ties to even."""
    bits = x.astype(F).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(F)


def recip(x: Values) -> Values:
    """1 / x for x > 0: 32 intervals, linear between by 8 bits; 0 below 2^-126."""
    m, e = _parts(x)
    steps = np.floor((m.astype(np.float64) - 1) * 2**13)
    i, rest = (steps // 256).astype(int), steps % 256
    value = (_RECIPROCALS[i] * 256 - (_RECIPROCALS[i] - _RECIPROCALS[i + 1]) * rest) / 2**24
    return _scaled(value.astype(F), -e)


def rsqrt(x: Values) -> Values:
    """1 / sqrt(x) for x > 0: 2 x 16 intervals, linear between by 8 bits."""
    m, e = _parts(x)
    steps = np.floor((m.astype(np.float64) - 1) * 2**12)
    i, rest, odd = (steps // 256).astype(int), steps % 256, e & 1
    value = (_ROOTS[odd, i] * 256 - (_ROOTS[odd, i] - _ROOTS[odd, i + 1]) * rest) / 2**24
    return _scaled(value.astype(F), -(e >> 1))


def exp(x: Values) -> Values:
    """e^x: the power of two rounded to 11 fraction bits; 8 intervals, linear between; 0 below 2^-126."""
    y = np.rint((x * (_LOG2_E * F(2048))).astype(np.float64)) / 2048
    y = np.clip(y, -1000, 1000)
    whole = np.floor(y)
    steps = (y - whole) * 8
    i = np.floor(steps).astype(int)
    value = _POWERS[i] + (steps - i) * (_POWERS[i + 1] - _POWERS[i])
    with np.errstate(over="ignore"):
        return _scaled(value.astype(F), whole.astype(int))


def total(x: Values) -> Values:
    """Sums of the last axis: a tree in each 32, block b added to partial b mod 8, a tree over the partials."""
    size = x.shape[-1]
    blocks = np.zeros((*x.shape[:-1], -(-size // 32) * 32), F)
    blocks[..., :size] = x
    sums = _tree(blocks.reshape(*x.shape[:-1], -1, 32))
    partials = np.zeros((*x.shape[:-1], 8), F)
    for b in range(sums.shape[-1]):
        partials[..., b % 8] += sums[..., b]
    return _tree(partials)


def _tree(x: Values) -> Values:
    while x.shape[-1] > 1:
        x = x[..., 0::2] + x[..., 1::2]
    return x[..., 0]


def _parts(x: Values) -> tuple[Values, NDArray[np.int64]]:
    """m in 1..2 and e of m 2^e."""
    m, e = np.frexp(x)
    return (2 * m).astype(F), e.astype(int) - 1


def _scaled(x: Values, e: NDArray[np.int64]) -> Values:
    """x 2^e with subnormals flushed to zero."""
    y = np.ldexp(x.astype(F), e)
    return np.where(np.abs(y) < F(2**-126), F(0), y)


def shifts(largest: Values, row: Values) -> NDArray[np.int32]:
    """ka [rows, groups]: the largest j in 0..7 with ``largest`` 2^j <= ``row``."""
    fits = [largest * F(2**j) <= row[..., None] for j in range(1, 8)]
    return np.sum(fits, axis=0, dtype=np.int32)


def quantise(x: Values, floor: float = 1e-12) -> tuple[Codes, NDArray[np.int32], Values]:
    """Codes of rows (last axis, a multiple of 32), ka of their groups, scales of rows."""
    grouped = np.abs(x).reshape(*x.shape[:-1], -1, GROUP).max(axis=-1)
    a = np.maximum(grouped.max(axis=-1), F(floor))
    s, ka = round_up(a / F(127)), shifts(grouped, a)
    steps = np.ldexp(recip(s)[..., None], ka)
    return _codes(x, steps.repeat(GROUP, axis=-1)), ka, s


def quantise_heads(x: Values) -> tuple[Codes, Values]:
    """Codes of heads (last axis) without shifts, and their scales."""
    s = round_up(np.maximum(np.abs(x).max(axis=-1), F(1e-12)) / F(127))
    return _codes(x, recip(s)[..., None]), s


def _codes(x: Values, steps: Values) -> Codes:
    return np.clip(np.rint(x * steps), -127, 127).astype(np.int8)


def _shift_right(x: Sums, n: NDArray[np.int32]) -> Sums:
    return (x + (np.int32(1) << n >> 1)) >> n


def multiply_groups(codes: Codes, ka: NDArray[np.int32], weights: GroupWeights) -> Sums:
    """Accumulators [rows, outputs] of 4-bit weights with group scales."""
    sd, sm, kc = weights.groups.sd, weights.groups.sm, weights.groups.kc
    assert sd is not None and sm is not None and kc is not None
    acc = np.zeros((len(codes), len(weights.codes)), np.int32)
    for g in range(sd.shape[1]):
        part = slice(GROUP * g, GROUP * (g + 1))
        a = codes[:, part].astype(F)
        psum = (a @ weights.codes[:, part].astype(F).T).astype(np.int32)  # below 2^24: exact
        xsum = a.sum(axis=1).astype(np.int32)[:, None]
        offset = (sm[:, g].astype(np.int32) * xsum) << kc
        acc += _shift_right(sd[:, g].astype(np.int32) * psum + offset, ka[:, g, None])
    return acc


def multiply_rows(codes: Codes, ka: NDArray[np.int32], weights: Codes) -> Sums:
    """Accumulators [rows, outputs] of INT8 weights [outputs, inputs]: `GUARD` times the product, units shifted."""
    acc = np.zeros((len(codes), len(weights)), np.int32)
    for u in range(codes.shape[1] // UNIT):
        part = slice(UNIT * u, UNIT * (u + 1))
        psum = (codes[:, part].astype(F) @ weights[:, part].astype(F).T).astype(np.int32)
        acc += _shift_right(GUARD * psum, ka[:, u * UNIT // GROUP, None])
    return acc


def linear(x: Values, weights: MachineWeights) -> Values:
    """fp32 results of bf16 rows ``x``, not yet rounded to bf16."""
    codes, ka, s = quantise(x)
    if isinstance(weights, RowWeights):
        acc = multiply_rows(codes, ka, weights.codes)
        scale = weights.scale / F(GUARD)
    else:
        acc, scale = multiply_groups(codes, ka, weights), weights.scale
    return acc.astype(F) * (s[:, None] * scale)


def norm(x: Values, weights: Values, epsilon: float) -> Values:
    """RMS norm of bf16 rows, to bf16."""
    mean = total(x * x) * F(1 / x.shape[1])
    return bf16(x * rsqrt(mean + F(epsilon))[:, None] * weights)


def silu_product(gate: Values, up: Values) -> Values:
    """silu(gate) up, bf16."""
    return bf16(gate * up * recip(F(1) + exp(-gate)))


class Emulation:
    """Forward passes of whole prompts; converted weights are kept."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._machine: dict[str, MachineWeights] = {}

    def logits(self, tokens: list[int]) -> Values:
        """fp32 logits [tokens, vocabulary]."""
        model = self.model
        embedding = self._weights(model.embedding)
        x = bf16(embedding.codes[tokens].astype(F) * embedding.scale[tokens][:, None])
        for layer in model.layers:
            x = bf16(x + self.attention(layer, norm(x, layer.attention_norm, model.epsilon)))
            n = norm(x, layer.hidden_norm, model.epsilon)
            hidden = silu_product(self.project(layer.gate, n), self.project(layer.up, n))
            x = bf16(x + self.project(layer.down, hidden))
        return linear(norm(x, model.output_norm, model.epsilon), self._weights(model.head))

    def attention(self, layer: Layer, n: Values) -> Values:
        """Causal attention of normalised rows ``n`` at positions 0, 1 .., bf16."""
        d = self.model.dimensions
        tokens, shared = len(n), d.heads // d.kv_heads
        query = self.rotate(self.project(layer.query, n).reshape(tokens, d.heads, d.head_width))
        key = self.rotate(self.project(layer.key, n).reshape(tokens, d.kv_heads, d.head_width))
        value = self.project(layer.value, n).reshape(tokens, d.kv_heads, d.head_width)
        (q, sq), (k, sk), (v, sv) = (quantise_heads(t) for t in (query, key, value))
        out = np.empty(query.shape, F)
        for head in range(d.heads):
            group = head // shared
            scores = _scores(q[:, head], k[:, group], sq[:, head], sk[:, group], F(d.head_width**-0.5))
            out[:, head] = _mix(scores, v[:, group], sv[:, group])
        return self.project(layer.attention_out, out.reshape(tokens, -1))

    def rotate(self, x: Values) -> Values:
        """bf16 [tokens, heads, head width] turned with tables of bf16, to bf16."""
        rotary = self.model.rotary
        angles = np.arange(len(x), dtype=F)[:, None] * rotary.frequencies
        cos, sin = bf16(np.cos(angles))[:, None, :], bf16(np.sin(angles))[:, None, :]
        first, second = pair_slices(rotary.pairs, x.shape[2])
        turned = np.empty_like(x)
        turned[..., first] = x[..., first] * cos - x[..., second] * sin
        turned[..., second] = x[..., second] * cos + x[..., first] * sin
        return bf16(turned)

    def project(self, projection: Projection, x: Values) -> Values:
        """W x + bias, bf16."""
        y = linear(x, self._weights(projection.weights))
        return bf16(y if projection.bias is None else y + projection.bias)

    def _weights(self, matrix: Matrix) -> MachineWeights:
        if matrix.name not in self._machine:
            self._machine[matrix.name] = matrix.machine()
        return self._machine[matrix.name]


def _scores(q: Codes, k: Codes, sq: Values, sk: Values, scale: np.float32) -> Values:
    """bf16 scores [queries, keys]."""
    acc = q.astype(F) @ k.astype(F).T  # below 2^24: exact
    return bf16(acc * (sq[:, None] * sk) * scale)


def _mix(scores: Values, v: Codes, sv: Values) -> Values:
    """Causal softmax of ``scores`` times values, bf16 [queries, head width]."""
    tokens = len(scores)
    padded = -(-tokens // GROUP) * GROUP
    seen = np.tri(tokens, dtype=bool)
    largest = np.where(seen, scores, -np.inf).max(axis=1, keepdims=True)
    p = np.zeros((tokens, padded), F)
    p[:, :tokens] = np.where(seen, bf16(exp(np.where(seen, scores - largest, F(0)))), F(0))
    weighted = p.copy()
    weighted[:, :tokens] *= sv
    codes, ka, s = quantise(weighted, 1e-20)
    values = np.zeros((v.shape[1], padded), np.int8)
    values[:, :tokens] = v.T
    acc = multiply_rows(codes, ka, values)
    return bf16(acc.astype(F) * (s * recip(total(p)) / F(GUARD))[:, None])
