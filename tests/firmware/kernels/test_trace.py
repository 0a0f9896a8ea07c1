"""Kernels written as Python functions give on the machine what plain numpy gives, bit for bit."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from headrace.config import machine
from headrace_host.cli import app
from headrace_host.errors import CompileError
from headrace_host.kernels.functions import exp2, recip, rsqrt, select
from headrace_host.kernels.placement import passes
from headrace_host.kernels.running import ARRAYS, expected, run
from headrace_host.kernels.trace import (
    BF16,
    I8,
    I16,
    U8,
    Float32,
    Int32,
    Kernel,
    Stream,
    channels,
    kernel,
    maximum,
    minimum,
    table,
)

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = ["base", "tiny", "odd"]


@kernel(result=I8)
def integers(a: I8, b: I16) -> Stream:
    mixed = (a * 5 - b) ^ (a & 0x55)
    return (maximum(mixed, -1000) << 1 | 1) >> 4


@kernel(result=Float32)
def floats(a: Float32, b: BF16) -> Stream:
    return minimum(abs(a) * 0.75 + b, 3.0) - (-a)


@kernel(result=Float32)
def functions(a: Float32) -> Stream:
    positive = abs(a) + 0.125
    return recip(positive) + rsqrt(positive) * exp2(a)


@kernel(result=Float32)
def normalised(a: I16) -> Stream:
    return a.to_float() * channels([0.5, -1.25, 3.0]) + channels([1.0, 2.0, 3.0])


@kernel(result=Int32)
def chosen(a: Int32, b: Int32) -> Stream:
    return select(a <= b, a + 7, b) + select(a > b, a, 0)


@kernel(result=Int32)
def three(a: I8, b: I8, c: I8) -> Stream:
    return (a - b) * (b - c) + (c - a) * b


@kernel(result=BF16)
def looked_up(a: U8) -> Stream:
    return table(np.sqrt(np.arange(256.0)), a) + table(np.arange(256) * 3 - 99, a).to_float()


@kernel(result=Int32, border="repeat")
def neighbours(a: I16) -> Stream:
    smooth = a.shifted(1, -1) + a.shifted(-1, 1)
    return maximum(smooth.shifted(-1, 2), smooth) - a.shifted(0, 1)


KERNELS = [integers, floats, functions, normalised, chosen, three, looked_up, neighbours]


def example(name: str) -> Kernel:
    found = runpy.run_path(str(EXAMPLES / f"{name}.py"))[name]
    assert isinstance(found, Kernel)
    return found


def inputs(k: Kernel, shape: tuple[int, ...], seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    print(f"seed {seed}")
    arrays: dict[str, NDArray[Any]] = {}
    for name, element in k.elements.items():
        if element in (Float32, BF16):
            values = rng.normal(0, 2, shape).astype(np.float32)
            arrays[name] = values if element is Float32 else (values.view(np.uint32) >> 16).astype(np.uint16)
        else:
            kind = ARRAYS[element]
            low, high = (-(1 << 20), 1 << 20) if element is Int32 else (np.iinfo(kind).min, np.iinfo(kind).max + 1)
            arrays[name] = rng.integers(low, high, shape).astype(kind)
    return arrays


def bits(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("k", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("shape", [(7, 5, 3), (20, 3)], ids=["image", "rows"])
def test_golden_equals_numpy(k: Kernel, name: str, shape: tuple[int, ...]) -> None:
    given = inputs(k, shape, 1)
    assert bits(run(k, given, machine(name))) == bits(expected(k, given))


@pytest.mark.parametrize("name", SMALL)
def test_examples(name: str) -> None:
    sobel, fir = example("sobel"), example("fir")
    picture, signals = inputs(sobel, (13, 11, 1), 2), inputs(fir, (40, 5), 3)
    assert bits(run(sobel, picture, machine(name))) == bits(expected(sobel, picture))
    assert bits(run(fir, signals, machine(name))) == bits(expected(fir, signals))


def test_pictures_of_the_readme_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python examples/pictures.py docs/images` makes them again."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    made = runpy.run_path(str(EXAMPLES / "pictures.py"))["pictures"]("golden")
    for name, image in made.items():
        with Image.open(EXAMPLES.parent / "docs" / "images" / name) as kept:
            np.testing.assert_array_equal(np.asarray(kept), np.asarray(image), name)


def test_sobel_is_the_textbook_filter() -> None:
    sobel = example("sobel")
    given = inputs(sobel, (9, 8, 1), 4)
    image = np.pad(given["image"][:, :, 0].astype(int), 1, mode="edge")
    weights = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3))
    gx, gy = ((windows * w).sum((2, 3)) for w in (weights, weights.T))
    assert np.array_equal(run(sobel, given, machine("base"))[:, :, 0], np.minimum(abs(gx) + abs(gy), 255))


def test_fir_is_a_convolution() -> None:
    found = runpy.run_path(str(EXAMPLES / "fir.py"))
    fir, taps = found["fir"], found["TAPS"]
    given = inputs(fir, (30, 2), 5)
    for signal, filtered in zip(given["signal"].T, run(fir, given, machine("base")).T, strict=True):
        whole = np.convolve(signal.astype(int), taps)[:30]
        assert np.array_equal(filtered, np.clip((whole + 64) >> 7, -32768, 32767))


def test_a_large_image_is_cut_to_strips() -> None:
    given = inputs(neighbours, (150, 20, 2), 6)
    assert bits(run(neighbours, given, machine("tiny"))) == bits(expected(neighbours, given))


def test_rtl_equals_numpy() -> None:
    sobel = example("sobel")
    given = inputs(sobel, (6, 5, 1), 7)
    assert bits(run(sobel, given, machine("tiny"), backend="rtl")) == bits(expected(sobel, given))


def test_passes() -> None:
    """One for what lives in two streams; a temporary where three values are needed at once, or a tap."""
    config = machine("base")
    assert [len(passes(k, config)) for k in (normalised, looked_up, integers, floats)] == [1, 1, 2, 2]
    assert len(passes(example("fir"), config)) == 6
    assert len(passes(example("sobel"), config)) == 7


def test_command_explains(tmp_path: Path) -> None:
    target = tmp_path / "fir.json"
    command = ["kernel", f"{EXAMPLES / 'fir.py'}:fir", "--shape", "40,1,16", "--explain", "--json", str(target)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "IMUL" in result.stdout
    found = json.loads(target.read_text())
    # Pass by pass a tap further, without the margin that the next no longer needs; two beats of 8 lanes a row.
    assert found["beats"] == sum(2 * (40 + 2 * (6 - tap)) for tap in range(1, 7))
    assert [len(each["operations"]) for each in found["passes"]] == [3, 2, 2, 2, 2, 4]


def test_command_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("x = 1\n")
    for argument, message in [(str(path), "has no kernel"), (f"{path}:x", "has no kernel 'x'")]:
        result = CliRunner().invoke(app, ["kernel", argument])
        assert result.exit_code == 2
        assert message in result.stderr


def test_types_do_not_mix() -> None:
    with pytest.raises(CompileError, match=r"test_trace\.py:\d+: '\+' takes int32 here, not fp32"):

        @kernel(result=I8)
        def wrong(a: I8, b: Float32) -> Stream:
            return a + b


def test_a_kernel_that_asks_for_a_truth_value() -> None:
    with pytest.raises(CompileError, match="use select"):

        @kernel(result=I8)
        def wrong(a: I8) -> Stream:
            return a if a < 3 else -a


def test_the_result_has_the_type_that_was_named() -> None:
    with pytest.raises(CompileError, match="must return an fp32 stream for BF16"):

        @kernel(result=BF16)
        def wrong(a: I8) -> Stream:
            return a + 1


def test_inputs_of_the_wrong_type_or_shape() -> None:
    with pytest.raises(CompileError, match="input 'a' must be int8"):
        run(three, dict.fromkeys("abc", np.zeros((2, 2), np.int16)), machine("base"))
    with pytest.raises(CompileError, match=r"channels\(\) of 3 values, the image has 4"):
        run(normalised, {"a": np.zeros((2, 4), np.int16)}, machine("base"))
