"""Prose whose perplexity is known."""

from __future__ import annotations

import pytest

from headrace_host.models.language import LanguageModel
from headrace_sim.rtl.builder import cache_root


@pytest.fixture(scope="session")
def news(smollm2: LanguageModel) -> list[int]:
    """Tokens of news prose."""
    path = cache_root() / "text_news.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing: news prose whose perplexity is known")
    return smollm2.tokenizer.encode(path.read_text()[:20000])
