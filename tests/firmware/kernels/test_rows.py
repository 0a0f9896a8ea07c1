"""Kernels with values of rows: on the machine what plain numpy gives, bit for bit, and what they are named after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from headrace.config import NpuConfig, machine
from headrace_host.cli import app
from headrace_host.errors import CompileError
from headrace_host.kernels import library, transformer
from headrace_host.kernels.row_running import expected_rows, run_rows
from headrace_host.kernels.running import expected, run
from headrace_host.kernels.trace import (
    BF16,
    I8,
    I16,
    Float32,
    Int32,
    Kernel,
    RowFloat32,
    RowInt32,
    Stream,
    element_number,
    is_of_row,
    kernel,
    row_max,
    row_min,
    row_sum,
)

WIDTH = 70
MACHINES = ["base", "tiny"]


@kernel(result={"total": RowInt32, "spread": RowInt32, "centred": I16})
def integers(a: I16, offset: RowInt32) -> tuple[Stream, Stream, Stream]:
    total = row_sum(a + offset)
    return total, row_max(a) - row_min(a), a - (total >> 6)


@kernel(result={"low": RowFloat32, "scaled": Float32})
def floats(a: Float32, b: Float32, gain: RowFloat32) -> tuple[Stream, Stream]:
    low = row_min(a * b)
    return low, (a - b) * gain + row_sum(a) * low


KERNELS = [
    integers, floats, transformer.add, transformer.copy, transformer.embed,
    transformer.rms_norm(np.linspace(-1, 2, WIDTH, dtype=np.float32), 1e-5), transformer.silu_product,
    transformer.softmax_rows, transformer.quantise_rows, library.softmax, library.gelu,
    library.argmax, library.layer_norm(np.linspace(1, 2, WIDTH), np.linspace(-1, 0, WIDTH), 1e-5),
]  # fmt: skip


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def wide(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def inputs(k: Kernel, seed: int, rows: int = 9, width: int = WIDTH) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    found: dict[str, NDArray[Any]] = {}
    for name, element in k.elements.items():
        shape = (rows,) if is_of_row(element) else (rows, width)
        if element is I8 or element is I16:
            found[name] = rng.integers(-100, 100, shape).astype(np.int8 if element is I8 else np.int16)
        elif element is RowInt32 or element is Int32:
            found[name] = rng.integers(-5000, 5000, shape).astype(np.int32)
        else:
            values = (rng.normal(0, 2, shape) * np.exp2(rng.integers(-3, 4, shape))).astype(np.float32)
            found[name] = bf16(values) if element is BF16 else values
    return found


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("k", KERNELS, ids=lambda k: k.name)
def test_golden_equals_numpy(k: Kernel, name: str) -> None:
    check(k, inputs(k, 5), machine(name))


@pytest.mark.parametrize("k", [integers, floats, library.softmax, library.argmax], ids=lambda k: k.name)
def test_rtl_equals_numpy(k: Kernel) -> None:
    check(k, inputs(k, 6, rows=3), machine("tiny"), backend="rtl")


def check(k: Kernel, given: dict[str, NDArray[Any]], config: NpuConfig, backend: str = "golden") -> None:
    found, wanted = run_rows(k, given, config, backend=backend), expected_rows(k, given)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, name)


def result(k: Kernel, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return wide(run_rows(k, {"x": bf16(x)}, machine("base"))["result"])


X = np.random.default_rng(2).normal(0, 3, (20, WIDTH)).astype(np.float32)
ROUNDED = wide(bf16(X)).astype(np.float64)


def test_softmax() -> None:
    e = np.exp(ROUNDED - ROUNDED.max(axis=1, keepdims=True))
    np.testing.assert_allclose(result(library.softmax, X), e / e.sum(axis=1, keepdims=True), rtol=0.008)


def test_layer_norm() -> None:
    weights, bias = np.linspace(1, 2, WIDTH), np.linspace(-1, 0, WIDTH)
    centred = ROUNDED - ROUNDED.mean(axis=1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * weights + bias
    np.testing.assert_allclose(result(library.layer_norm(weights, bias, 1e-5), X), wanted, rtol=0.006, atol=0.001)


def test_rms_norm() -> None:
    weights = np.linspace(1, 2, WIDTH).astype(np.float32)
    wanted = ROUNDED / np.sqrt((ROUNDED**2).mean(axis=1, keepdims=True) + 1e-5) * weights
    np.testing.assert_allclose(result(transformer.rms_norm(weights, 1e-5), X), wanted, rtol=0.006)


def test_gelu() -> None:
    z = np.sqrt(2 / np.pi) * (ROUNDED + 0.044715 * ROUNDED**3)
    np.testing.assert_allclose(result(library.gelu, X), ROUNDED * 0.5 * (1 + np.tanh(z)), rtol=0.012, atol=1e-6)


def test_silu_gate() -> None:
    up = np.linspace(-2, 2, WIDTH, dtype=np.float32) + 0 * X
    found = run_rows(transformer.silu_product, {"gate": bf16(X), "up": bf16(up)}, machine("base"))["result"]
    wanted = ROUNDED / (1 + np.exp(-ROUNDED)) * wide(bf16(up))
    np.testing.assert_allclose(wide(found), wanted, rtol=0.008, atol=1e-6)


def test_argmax_takes_the_first() -> None:
    x = np.round(np.random.default_rng(4).normal(0, 1, (50, WIDTH)), 1).astype(np.float32)
    found = run_rows(library.argmax, {"x": x}, machine("base"))["result"]
    np.testing.assert_array_equal(found, x.argmax(axis=1))


def test_quantised_rows() -> None:
    found = run_rows(transformer.quantise_rows, {"x": bf16(X)}, machine("base"))
    np.testing.assert_allclose(found["codes"] * found["scale"][:, None], ROUNDED, atol=found["scale"].max() * 0.51)
    assert np.abs(found["codes"]).max(axis=1).min() >= 125


@pytest.mark.parametrize("distance", [1, 8], ids=["neighbours", "halves"])
def test_rotary_positions(distance: int) -> None:
    """Pairs are complex numbers that turn by their position's angle."""
    tokens, width = 12, 16
    x = bf16(np.random.default_rng(8).normal(0, 1, (tokens, width, 1)).astype(np.float32))
    pair = np.arange(width) // 2 if distance == 1 else np.arange(width) % (width // 2)
    is_first = np.arange(width) % 2 == 0 if distance == 1 else np.arange(width) < width // 2
    angle = np.arange(tokens)[:, None, None] * 100.0 ** (-2 * pair / width)[:, None]
    tables = {
        "cosine": np.cos(angle),
        "up": np.where(is_first[:, None], -np.sin(angle), 0),
        "down": np.where(is_first[:, None], 0, np.sin(angle)),
    }
    given = {"x": x} | {name: table.astype(np.float32) for name, table in tables.items()}
    k = library.rope(distance)
    found = run(k, given, machine("base"))
    np.testing.assert_array_equal(found, expected(k, given))
    whole = wide(x)[:, :, 0]
    numbers = whole[:, is_first] + 1j * whole[:, ~is_first]
    turned = numbers * np.exp(1j * angle[:, is_first, 0])
    wanted = np.zeros((tokens, width))
    wanted[:, is_first], wanted[:, ~is_first] = turned.real, turned.imag
    np.testing.assert_allclose(wide(found)[:, :, 0], wanted, atol=0.02)


def test_many_rows_are_cut_to_what_the_scratchpad_holds() -> None:
    check(library.softmax, inputs(library.softmax, 7, rows=300, width=64), machine("tiny"))


def test_what_does_not_fit_or_exist() -> None:
    with pytest.raises(CompileError, match="values of rows or several results; run it with run_rows"):
        run(library.argmax, {"x": X}, machine("base"))
    with pytest.raises(CompileError, match="does not fit the scratchpad of machine 'tiny'"):
        run_rows(library.argmax, {"x": np.zeros((1, 5000), np.float32)}, machine("tiny"))
    with pytest.raises(CompileError, match=r"input 'x' must be float32 \[rows, elements\]"):
        run_rows(library.argmax, {"x": np.zeros((2, 3, 4), np.float32)}, machine("base"))
    with pytest.raises(CompileError, match="cannot add fp32 of a row; set float_sum"):
        run_rows(library.softmax, {"x": bf16(X)}, replace(machine("base"), name="plain", float_sum=False))
    with pytest.raises(CompileError, match="'row_sum' takes a value of every element"):

        @kernel(result=RowFloat32)
        def twice(x: Float32) -> Stream:
            return row_sum(row_sum(x))

    with pytest.raises(CompileError, match="is RowFloat32 or RowInt32, not Float32"):

        @kernel(result=Float32)
        def total(x: Float32) -> Stream:
            return row_sum(x)


def test_command_explains(tmp_path: Path) -> None:
    path, target = tmp_path / "mine.py", tmp_path / "mine.json"
    path.write_text(
        "from headrace_host.kernels.trace import *\n"
        "@kernel(result={'largest': RowFloat32, 'rest': Float32})\n"
        "def mine(x: Float32):\n    largest = row_max(abs(x))\n    return largest, x * x - largest\n"
    )
    command = ["kernel", str(path), "--shape", "10,1,64", "--explain", "--json", str(target)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    found = json.loads(target.read_text())
    assert found["beats"] == 2 * 10 * 8
    assert [each["reads"] for each in found["passes"]] == [["x"], ["x", "largest"]]
    assert [each["result"] for each in found["passes"]] == ["largest: RowFloat32", "rest: Float32"]
    assert found["passes"][0]["operations"] == ["x = FMAX IAND x, 2147483647"]


def test_numbers_of_elements() -> None:
    """An element's number is its place in the row, which images do not have."""

    @kernel(result=Int32)
    def numbered(a: Int32) -> Stream:
        return a + element_number()

    check(numbered, inputs(numbered, 3), machine("base"))
    with pytest.raises(CompileError, match="run it with run_rows"):
        run(numbered, {"a": np.zeros((4, 5, 3), np.int32)}, machine("base"))
