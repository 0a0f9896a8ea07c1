"""Small models of both architectures on the golden machine: logits equal the emulated numerics bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.config import machine
from headrace.isa.assembler import Program
from headrace.isa.check import check
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.transformer.runner import TextRunner
from headrace_host.transformer.text import TextMachine

CONTEXT = 64
TOKENS = [5, 17, 99, 3, 250, 44, 44, 12, 7, 201, 150, 31, 90, 64, 2, 11, 33, 180, 77, 8]


def run(text: TextMachine, chunks: list[int], backend: str = "golden") -> NDArray[np.float32]:
    """Logits of `TOKENS`, taken ``chunks`` at a time."""
    runner = TextRunner(text, sizes=sorted(set(chunks)), backend=backend)
    position, logits = 0, []
    for size in chunks:
        logits.append(runner.run(TOKENS[position : position + size], position))
        position += size
    return np.concatenate(logits)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_decode_equals_emulation(architecture: str, tmp_path: Path, emulation: ModuleType, files: ModuleType) -> None:
    model = load_gguf(files.small(tmp_path, architecture))
    text = TextMachine(model, machine("base"), CONTEXT, tuple(range(model.dimensions.layers)))
    expected = emulation.Emulation(model).logits(TOKENS)
    np.testing.assert_array_equal(run(text, [1] * len(TOKENS)), expected)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_prefill_equals_emulation(architecture: str, tmp_path: Path, emulation: ModuleType, files: ModuleType) -> None:
    model = load_gguf(files.small(tmp_path, architecture))
    text = TextMachine(model, machine("base"), CONTEXT, tuple(range(model.dimensions.layers)))
    expected = emulation.Emulation(model).logits(TOKENS)
    np.testing.assert_array_equal(run(text, [16, 1, 1, 1, 1]), expected)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_on_the_hardware(architecture: str, tmp_path: Path, emulation: ModuleType, files: ModuleType) -> None:
    model = load_gguf(files.small(tmp_path, architecture))
    text = TextMachine(model, machine("base"), CONTEXT, tuple(range(model.dimensions.layers)))
    expected = emulation.Emulation(model).logits(TOKENS[:18])
    np.testing.assert_array_equal(run(text, [16, 1, 1], "rtl"), expected)


@pytest.mark.parametrize(("tokens", "positions"), [(1, range(CONTEXT)), (16, range(0, CONTEXT, 16))], ids=["1", "16"])
def test_images_are_valid_at_every_position(tokens: int, positions: range, tmp_path: Path, files: ModuleType) -> None:
    """One image serves all positions: tokens, ring entries and limits hold whatever the registers say."""
    model, config = load_gguf(files.small(tmp_path, "llama")), machine("base")
    text = TextMachine(model, config, CONTEXT, tuple(range(model.dimensions.layers)))
    for compiled in text.build(tokens).models:
        program = Program.from_image(compiled.ring)
        check(program, config)
        for position in positions:
            check(program, config, text.scalars(position, tokens))


@pytest.mark.regress
def test_context_of_2048(tmp_path: Path, emulation: ModuleType, files: ModuleType) -> None:
    """Every length to the end of the longest context, in chunks and then one by one."""
    context, chunk = 2048, 64
    model = load_gguf(files.small(tmp_path, "llama"))
    text = TextMachine(model, machine("base"), context, tuple(range(model.dimensions.layers)))
    runner = TextRunner(text, sizes=[chunk, 1])
    tokens = np.random.default_rng(5).integers(0, model.dimensions.vocabulary, context).tolist()
    starts = [(first, chunk) for first in range(0, context - chunk, chunk)]
    starts += [(first, 1) for first in range(context - chunk, context)]
    found = [runner.run(tokens[first : first + count], first) for first, count in starts]
    np.testing.assert_array_equal(np.concatenate(found), emulation.Emulation(model).logits(tokens))
