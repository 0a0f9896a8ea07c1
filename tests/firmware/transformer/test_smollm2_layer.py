"""SmolLM2-135M, its own weights: a layer on the hardware and the golden machine, the whole model on the latter."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from headrace.config import machine
from headrace_host.models.language import LanguageModel
from headrace_host.transformer.runner import TextRunner
from headrace_host.transformer.text import TextMachine

PROMPT = 64
STEPS = 16
CONTEXT = 128


def test_prefill_and_decode_on_the_hardware(smollm2: LanguageModel) -> None:
    """64 tokens at once, then 16 one by one: rows, and all of DDR that the machine may write, caches included."""
    text = TextMachine(smollm2, machine("base"), CONTEXT, (0,), head=False)
    golden, rtl = (TextRunner(text, sizes=[PROMPT, 1], backend=backend) for backend in ("golden", "rtl"))
    tokens = np.random.default_rng(11).integers(0, smollm2.dimensions.vocabulary, PROMPT + STEPS).tolist()
    position = 0
    for count in (PROMPT, *[1] * STEPS):
        some = tokens[position : position + count]
        expected, found = golden.run(some, position), rtl.run(some, position)
        np.testing.assert_array_equal(found, expected, f"rows from position {position}")
        assert rtl.device.read(0, text.area_bytes) == golden.device.read(0, text.area_bytes)
        position += count
    assert np.isfinite(expected).all() and expected.any()


@pytest.mark.regress
def test_the_whole_model_equals_emulation(smollm2: LanguageModel, emulation: ModuleType) -> None:
    """All 30 layers and the head: a prompt at once, then its answer token by token."""
    text = TextMachine(smollm2, machine("base"), CONTEXT, tuple(range(smollm2.dimensions.layers)))
    runner = TextRunner(text, sizes=[PROMPT, 1])
    tokens = smollm2.tokenizer.encode("The water that turns the wheel of a mill comes through a channel. " * 8)[:PROMPT]
    logits = [runner.run(tokens, 0)]
    for position in range(PROMPT, PROMPT + STEPS):
        tokens.append(int(logits[-1][-1].argmax()))
        logits.append(runner.run(tokens[-1:], position))
    np.testing.assert_array_equal(np.concatenate(logits), emulation.Emulation(smollm2).logits(tokens))
