"""A machine's Verilog, ready to compile; emission takes seconds, so it is cached by the content of its sources."""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import headrace
from headrace.cells import CellLibrary
from headrace.config import NpuConfig

from .builder import Design, cache_root

__all__ = ["TOP", "design"]

TOP = "headrace"


def _source_digest() -> str:
    digest = hashlib.sha256(version("amaranth").encode())
    root = Path(headrace.__file__).parent
    for source in sorted(root.rglob("*.py")):
        digest.update(str(source.relative_to(root)).encode() + source.read_bytes())
    return digest.hexdigest()


_SOURCES = _source_digest()
"""Of the sources when this process began to import them."""


def design(config: NpuConfig) -> Design:
    """The machine as module `headrace`; from the cache unless the hardware's sources or parameters are new.

    What a process emits after its sources have changed is not kept: it may run code from before.
    """
    name = hashlib.sha256((json.dumps(config.to_dict()) + _SOURCES).encode()).hexdigest()[:24]
    cached = cache_root() / "verilog" / f"{config.name}-{name}.json"
    if cached.exists():
        content = json.loads(cached.read_text())
    else:
        content = _emit(config)
        if _source_digest() == _SOURCES:
            _replace(cached, json.dumps(content))
    return Design(verilog=content["verilog"], top=TOP, axi_bits=config.axi_bits, classes=tuple(content["cells"]))


def _emit(config: NpuConfig) -> dict[str, object]:
    from headrace.npu import Npu  # importing Amaranth and the whole hardware takes a second
    from headrace.verilog import emit

    library = CellLibrary(TOP)
    text = emit(Npu(config=config), TOP, library=library)
    return {"verilog": text, "cells": [name for name, _ in library.modules()]}


def _replace(path: Path, text: str) -> None:
    """Write a file so that another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
