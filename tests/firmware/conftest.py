"""Shared fixtures: the numpy oracle and the fetched network (skipped, saying so, when it cannot be fetched)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace_host.errors import FetchError
from headrace_host.models.fetch import fetch_cifar10, fetch_imagenet, fetch_resnet8, fetch_visual_wake_words
from headrace_host.models.graph import Graph
from headrace_host.models.tflite_import import load_tflite


def _sibling(name: str) -> ModuleType:
    """The module ``name`` beside this file (pytest's importlib mode leaves test folders off the import path)."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"headrace_firmware_{name}", path)
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
