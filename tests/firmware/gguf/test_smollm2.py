"""SmolLM2-135M-Instruct: from its file to known answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace_host.cli import app
from headrace_host.models.language import LanguageModel
from headrace_host.models.language_reference import (
    KeyValueCache,
    LanguageReference,
    negative_log_likelihoods,
    perplexity,
)

WINDOW = 384


@pytest.fixture(scope="module")
def reference(smollm2: LanguageModel) -> LanguageReference:
    return LanguageReference(smollm2)


def test_inspect(smollm2_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(smollm2_path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["dimensions"] == {
        "layers": 30, "width": 576, "heads": 9, "kv_heads": 3, "head_width": 64, "hidden": 1536, "vocabulary": 49152,
        "context": 8192,
    }  # fmt: skip
    assert found["tied"] and found["rotary_pairs"] == "interleaved" and len(found["matrices"]) == 211
    assert found["total"]["weights"] == 134_479_872 and found["total"]["bits_per_weight"] == pytest.approx(
        5.26, abs=0.01
    )
    assert {m["machine_form"] for m in found["matrices"][1:]} == {"INT4 groups"}
    assert found["matrices"][0]["machine_form"] == "INT8 rows"


def test_chat(smollm2: LanguageModel) -> None:
    tokenizer = smollm2.tokenizer
    tokens = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    assert tokenizer.decode(tokens, control=True).endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokens[0] == 1 and tokens.count(2) == 2 and tokenizer.stop == {2}


@pytest.mark.regress  # 4 s a token on a slow machine
def test_answer(smollm2: LanguageModel, reference: LanguageReference) -> None:
    tokenizer, cache = smollm2.tokenizer, KeyValueCache()
    tokens = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    answer: list[int] = []
    while len(answer) < 20 and not tokenizer.stop & set(answer):
        tokens = [int(reference.logits(tokens, cache)[-1].argmax())]
        answer += tokens
    assert "Paris" in tokenizer.decode(answer)


@pytest.mark.regress  # 30 s
def test_perplexity(reference: LanguageReference, news: list[int]) -> None:
    tokens = news[:512]
    assert perplexity(reference.logits(tokens), tokens) == pytest.approx(25.4, abs=0.1)


@pytest.mark.regress  # 4 minutes
def test_machine_numerics_cost_little(emulation: ModuleType, reference: LanguageReference, news: list[int]) -> None:
    """Measured: +0.05 % and +0.30 % in the first two windows of 384 tokens."""
    emulated = emulation.Emulation(reference.model)
    losses = []
    for start in (0, WINDOW):
        tokens = news[start : start + WINDOW]
        found = (model.logits(tokens) for model in (reference, emulated))
        losses.append([negative_log_likelihoods(logits, tokens).mean() for logits in found])
    exact, machine = np.mean(losses, axis=0)
    change = float(np.exp(machine - exact) - 1)
    print(f"perplexity changes by {change:+.2%}")
    assert abs(change) < 0.015
