"""Helper modules of this folder, and SmolLM2 (skipped, saying so, when it cannot be fetched)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace_host.errors import FetchError
from headrace_host.models.fetch import fetch_smollm2
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language import LanguageModel
from headrace_sim.rtl.builder import cache_root


def _sibling(name: str) -> ModuleType:
    """The module ``name`` beside this file (pytest's importlib mode leaves test folders off the import path)."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"headrace_gguf_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def files() -> ModuleType:
    return _sibling("files")


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return _sibling("emulation")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    try:
        return fetch_smollm2()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> LanguageModel:
    return load_gguf(smollm2_path)


@pytest.fixture(scope="session")
def news(smollm2: LanguageModel) -> list[int]:
    """Tokens of news prose."""
    path = cache_root() / "text_news.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing: news prose whose perplexity is known")
    return smollm2.tokenizer.encode(path.read_text()[:20000])
