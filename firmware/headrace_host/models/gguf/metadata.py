"""Metadata of a GGUF file, its types checked."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from headrace_host.errors import ModelError

T = TypeVar("T")


class Metadata:
    """Values by key. Every getter raises `ModelError` for a wrong type, and for a missing key without default."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name, self._values = name, values

    def error(self, text: str) -> ModelError:
        """An error that names the file."""
        return ModelError(f"{self._name}: {text}")

    def text(self, key: str, default: str | None = None) -> str:
        return self._get(key, str, default)

    def flag(self, key: str, default: bool) -> bool:
        return self._get(key, bool, default)

    def integer(self, key: str, default: int | None = None) -> int:
        return self._get(key, int, default)

    def number(self, key: str, default: float | None = None) -> float:
        return self._get(key, float, default)

    def strings(self, key: str) -> list[str]:
        return self._get(key, list, None)

    def integers(self, key: str) -> list[int]:
        """An array of integers; empty when the key is missing."""
        values = self._get(key, np.ndarray, np.zeros(0, np.int32))
        if values.dtype.kind not in "iu":
            raise self.error(f"'{key}' holds no integers; the file is damaged, fetch or convert it again")
        return [int(value) for value in values]

    def _get(self, key: str, kind: type[T], default: T | None) -> T:
        value = self._values.get(key, default)
        if value is None:
            raise self.error(f"'{key}' is missing; convert the model again")
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise self.error(
                f"'{key}' is of type {type(value).__name__}, not {kind.__name__}; the file is damaged, fetch or "
                "convert it again"
            )
        return value
