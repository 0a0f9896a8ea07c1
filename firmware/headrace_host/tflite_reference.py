"""TFLite's own answers, when its interpreter (package ai-edge-litert) is installed: an independent check of results."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_host.models.graph import Tensor


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

    def run(self, tensor: Tensor, codes: NDArray[np.generic]) -> None:
        """Compute the network for ``codes`` of input ``tensor``; a model that takes fp32 gets what they stand for."""
        source = self._interpreter.get_input_details()[0]
        value = codes
        if source["dtype"] == np.float32:
            value = (codes.astype(np.float32) - np.float32(tensor.zero_point)) * tensor.scalar_scale
        self._interpreter.set_tensor(source["index"], value)
        self._interpreter.invoke()

    def tensor(self, name: str) -> NDArray[np.int8]:
        """A tensor by its name in the imported graph, which begins with its index in the file.

        Only outputs and what the last operator reads survive a run.
        """
        value: NDArray[np.int8] = self._interpreter.get_tensor(int(name.split(":", 1)[0]))
        return value
