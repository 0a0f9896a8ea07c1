"""Perplexity of a small model's text on the golden machine beside its fp32 reference."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace.config import machine
from headrace_host.errors import CompileError
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language_reference import negative_log_likelihoods
from headrace_host.transformer.perplexity import Perplexity, expected, measured, windows_of


def test_windows_start_afresh_and_equal_emulation(tmp_path: Path, emulation: ModuleType, files: ModuleType) -> None:
    model = load_gguf(files.small(tmp_path, "llama"))
    tokens = np.random.default_rng(3).integers(0, model.dimensions.vocabulary, 128).tolist()
    windows = windows_of(tokens, 2, 64)
    found = list(measured(model, machine("base"), windows, jobs=1))
    for window, likelihood in zip(windows, found, strict=True):
        emulated = emulation.Emulation(model).logits(window)
        assert likelihood == negative_log_likelihoods(emulated, window).mean()
    references = list(expected(model, windows))
    result = Perplexity(
        model="small", machine="base", length=64, measured=tuple(found), reference=tuple(references)
    ).to_dict()
    assert result["perplexity"] == pytest.approx(np.exp(np.mean(found)), rel=1e-4)
    assert 0 < abs(result["change"]) < 0.02


def test_processes_share_the_work(tmp_path: Path, files: ModuleType) -> None:
    model = load_gguf(files.small(tmp_path, "llama"))
    windows = windows_of(list(range(192)), 3, 64)
    alone, shared = (list(measured(model, machine("base"), windows, jobs=jobs)) for jobs in (1, 2))
    assert alone == shared


@pytest.mark.parametrize(("count", "length", "message"), [(1, 100, "multiple of 64"), (3, 64, "need 192 tokens")])
def test_windows_that_do_not_exist(count: int, length: int, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        windows_of(list(range(150)), count, length)
