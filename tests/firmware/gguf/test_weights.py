"""Matrices on the machine stand for what the file's stand for; each type takes the form that the rules say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from headrace_host.errors import ModelError
from headrace_host.kernels.group_weights import GroupWeights, from_q4_1
from headrace_host.kernels.row_weights import RowWeights, from_rows
from headrace_host.models.gguf.reader import GgufFile
from headrace_host.models.gguf.weights import LARGEST_LOSS, GgufMatrix, nearest_four_bit, relative_error
from headrace_host.models.language import machine_bits, machine_dense

F = np.float32
ROWS, INPUTS = 24, 512


def matrix(folder: Path, values: np.ndarray, kind: Kind, *, rows_only: bool = False) -> GgufMatrix:
    """``values`` [rows, inputs], or bytes of ``kind``, as a matrix of a file."""
    path = folder / f"{kind.name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    stored = values if values.dtype == np.uint8 else gguf.quants.quantize(values, kind)
    writer.add_tensor("w", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    return GgufMatrix(file=file, tensor=file.tensors["w"], rows_only=rows_only)


def normal(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(ROWS, INPUTS)) * rng.uniform(0.01, 1, (ROWS, 1))).astype(F)


def q4_k(seed: int) -> np.ndarray:
    """Random blocks: fp16 scales, 6-bit scales and minima, codes."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (ROWS, INPUTS // 256, 144)).astype(np.uint8)
    scales = rng.uniform(0.5, 1, (ROWS, INPUTS // 256, 2)) * [1e-3, 4e-3]
    blocks[:, :, :4] = scales.astype("<f2").view(np.uint8)
    blocks[:, :, 4:12] |= 0x20  # of the first four scales and minima the upper half; bits 7, 6 are parts of the others
    blocks[:, :, 4:12] |= 0x80
    return blocks.reshape(ROWS, -1)


def test_q4_1_codes_stay(tmp_path: Path) -> None:
    found = matrix(tmp_path, normal(1), Kind.Q4_1)
    raw = gguf.quants.quantize(normal(1), Kind.Q4_1).reshape(ROWS, -1, 20)
    d, m = raw[:, :, :2].copy().view("<f2")[:, :, 0], raw[:, :, 2:4].copy().view("<f2")[:, :, 0]
    q = np.concatenate([raw[:, :, 4:] & 15, raw[:, :, 4:] >> 4], axis=2).reshape(ROWS, INPUTS)
    expected, weights = from_q4_1(q, d, m), found.machine()
    assert isinstance(weights, GroupWeights)
    assert np.array_equal(weights.codes, expected.codes) and np.array_equal(weights.scale, expected.scale)
    for name in ("sd", "sm", "kc"):
        assert np.array_equal(getattr(weights.groups, name), getattr(expected.groups, name))


def test_q4_0_codes_stay(tmp_path: Path) -> None:
    """Blocks whose scale is negative are the same weights with inverted codes."""
    found = matrix(tmp_path, normal(2), Kind.Q4_0)
    raw = gguf.quants.quantize(normal(2), Kind.Q4_0).reshape(ROWS, -1, 18)
    d = raw[:, :, :2].copy().view("<f2").astype(F)
    q = np.concatenate([raw[:, :, 2:] & 15, raw[:, :, 2:] >> 4], axis=2).astype(int)
    assert 0.2 < (d < 0).mean() < 0.8
    weights = found.machine()
    assert isinstance(weights, GroupWeights)
    assert np.array_equal(weights.codes, np.where(d < 0, 7 - q, q - 8).reshape(ROWS, INPUTS))
    assert relative_error(machine_dense(weights), (d * (q - 8)).reshape(ROWS, INPUTS).astype(F)) < 0.01


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q4_K])
def test_four_bit_codes_are_the_weights(tmp_path: Path, kind: Kind) -> None:
    found = matrix(tmp_path, q4_k(3) if kind is Kind.Q4_K else normal(3), kind)
    four = found._four_bit()
    values = np.repeat(four.d, 32, axis=1) * four.codes + np.repeat(four.m, 32, axis=1)
    exact = found.dense()
    assert np.abs(values - exact).max() <= 1e-6 * np.abs(exact).max() and four.codes.max() == 15


def test_forms(tmp_path: Path) -> None:
    """4 bits of what had more lose too much; what had 4 bits keeps them."""
    bits = {kind: matrix(tmp_path, normal(4), kind) for kind in (Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.F16, Kind.BF16)}
    for found in bits.values():
        weights = found.machine()
        assert isinstance(weights, RowWeights)
        assert relative_error(machine_dense(weights), found.dense()) < 0.015
    assert relative_error(machine_dense(nearest_four_bit(normal(4)).grouped()), normal(4)) > 2 * LARGEST_LOSS
    # 4-bit weights that were stored with more bits, and Q4_K.
    rounded = gguf.quants.dequantize(gguf.quants.quantize(normal(5), Kind.Q4_1), Kind.Q4_1)
    for found in (matrix(tmp_path, rounded, Kind.F32), matrix(tmp_path, q4_k(6), Kind.Q4_K)):
        weights = found.machine()
        assert isinstance(weights, GroupWeights)
        assert relative_error(machine_dense(weights), found.dense()) < LARGEST_LOSS
    assert isinstance(matrix(tmp_path, normal(7), Kind.Q4_1, rows_only=True).machine(), RowWeights)
    odd = matrix(tmp_path, rounded[:, :40], Kind.F32).machine()
    assert isinstance(odd, RowWeights) and odd.codes.shape == (ROWS, 40)


def test_q6_k(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    blocks = rng.integers(0, 256, (ROWS, INPUTS // 256, 210)).astype(np.uint8)
    blocks[:, :, 208:] = rng.uniform(1e-4, 2e-4, (ROWS, INPUTS // 256, 1)).astype("<f2").view(np.uint8)
    found = matrix(tmp_path, blocks.reshape(ROWS, -1), Kind.Q6_K)
    weights = found.machine()
    assert isinstance(weights, RowWeights) and found.shape == (ROWS, INPUTS)
    assert relative_error(machine_dense(weights), found.dense()) < 0.02


def test_bits() -> None:
    grouped = nearest_four_bit(normal(10)).grouped()
    assert machine_bits(grouped) == ROWS * (INPUTS * 4 + INPUTS // 32 * 16 + 16 + 3)
    assert machine_bits(from_rows(normal(10))) == ROWS * (INPUTS * 8 + 16)


def test_damaged_values(tmp_path: Path, files: ModuleType) -> None:
    raw = gguf.quants.quantize(normal(11), Kind.Q4_1)
    raw[5, 20:22] = np.array([np.inf], "<f2").view(np.uint8)
    with pytest.raises(ModelError, match=r"Q4_1.gguf: tensor 'w'.*damaged"):
        matrix(tmp_path, raw, Kind.Q4_1).machine()
    raw = gguf.quants.quantize(normal(11), Kind.Q8_0)
    raw[5, :2] = np.array([np.nan], "<f2").view(np.uint8)
    with pytest.raises(ModelError, match=r"Q8_0.gguf: tensor 'w'.*damaged"):
        matrix(tmp_path, raw, Kind.Q8_0).machine()
