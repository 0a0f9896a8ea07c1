"""Shared fixtures: helper modules and the fetched networks (skipped, saying so, when they cannot be fetched)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace_host.errors import FetchError
from headrace_host.models.fetch import (
    fetch_cifar10,
    fetch_imagenet,
    fetch_resnet8,
    fetch_smollm2,
    fetch_visual_wake_words,
)
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.graph import Graph
from headrace_host.models.language import LanguageModel
from headrace_host.models.tflite_import import load_tflite


def _sibling(name: str) -> ModuleType:
    """The module ``name`` in this folder or below: pytest's importlib mode leaves test folders off the import path."""
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"headrace_firmware_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    return _sibling("reference")


@pytest.fixture(scope="session")
def graphs() -> ModuleType:
    return _sibling("graphs")


@pytest.fixture(scope="session")
def tflite_models() -> ModuleType:
    return _sibling("tflite_models")


@pytest.fixture(scope="session")
def files() -> ModuleType:
    return _sibling("gguf/files")


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return _sibling("gguf/emulation")


@pytest.fixture(scope="session")
def resnet8_path() -> Path:
    try:
        return fetch_resnet8()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def resnet8(resnet8_path: Path) -> Graph:
    return load_tflite(resnet8_path)


@pytest.fixture(scope="session")
def cifar10() -> list[Path]:
    try:
        return fetch_cifar10()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wake_words_path() -> Path:
    try:
        return fetch_visual_wake_words()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wake_words(wake_words_path: Path) -> Graph:
    return load_tflite(wake_words_path)


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    try:
        return fetch_imagenet()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    try:
        return fetch_smollm2()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> LanguageModel:
    return load_gguf(smollm2_path)
