"""Small language models and the emulated numerics, which the tests of GGUF import have."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    path = Path(__file__).parent.parent / "gguf" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"headrace_gguf_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def files() -> ModuleType:
    return _module("files")


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return _module("emulation")
