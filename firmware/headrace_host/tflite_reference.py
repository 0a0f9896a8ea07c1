"""TFLite's own answers, when its interpreter (package ai-edge-litert) is installed: an independent check of results."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TfliteReference:
    """The default interpreter of one model file."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        interpreter.allocate_tensors()

    @classmethod
    def open(cls, path: Path) -> TfliteReference | None:
        """The interpreter of ``path``; None when the package is not installed."""
        try:
            module = import_module("ai_edge_litert.interpreter")
        except ImportError:
            return None
        return cls(module.Interpreter(str(path)))

    def run(self, value: NDArray[np.int8]) -> None:
        """Compute the network for ``value``."""
        self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], value)
        self._interpreter.invoke()

    def tensor(self, name: str) -> NDArray[np.int8]:
        """A tensor by its name in the imported graph, which begins with its index in the file.

        Only outputs and what the last operator reads survive a run.
        """
        value: NDArray[np.int8] = self._interpreter.get_tensor(int(name.split(":", 1)[0]))
        return value
