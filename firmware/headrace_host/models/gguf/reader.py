"""GGUF files: metadata and a table of tensors, read at opening; weights stay in the file, memory mapped."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from headrace_host.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Codes of `struct` for each type of metadata value."""
_STRING, _ARRAY = 8, 9
_AGAIN = "fetch or convert it again"


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """A tensor in the file: ``shape`` is (rows, row) for matrices; ``offset`` and ``size`` are bytes of the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    size: int


class GgufFile:
    """One open file: ``metadata`` by key, ``tensors`` by name.

    Raises:
        ModelError: when the file cannot be read, is not GGUF, is damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._content = _mapped(path)
        cursor = _Cursor(self._content)
        tensors, keys = cursor.header()
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = cursor.string()
            if key in self.metadata:
                raise ModelError(f"damaged file: key '{key}' appears twice; {_AGAIN}")
            self.metadata[key] = cursor.value(int(cursor.scalar("I")))
        listed = [cursor.tensor() for _ in range(tensors)]
        self.tensors = self._placed(listed, cursor.at)

    def content(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """The bytes of ``tensor``, one row of them for each of its rows (a vector is one row)."""
        rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        flat = np.frombuffer(self._content, np.uint8, tensor.size, tensor.offset)
        return flat.reshape(rows, -1)

    def _placed(self, listed: list[GgufTensor], end: int) -> dict[str, GgufTensor]:
        """Tensors by name, their offsets counted from the start of the file, which must hold all of each."""
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelError(f"damaged file: alignment {alignment}; {_AGAIN}")
        base, limit = -(-end // alignment) * alignment, len(self._content)
        placed: dict[str, GgufTensor] = {}
        for t in listed:
            offset = base + t.offset
            if t.name in placed:
                raise ModelError(f"damaged file: tensor '{t.name}' appears twice; {_AGAIN}")
            if offset + t.size > limit:
                raise ModelError(
                    f"truncated file: tensor '{t.name}' ends at byte {offset + t.size:,} of {limit:,}; {_AGAIN}"
                )
            placed[t.name] = GgufTensor(name=t.name, shape=t.shape, kind=t.kind, offset=offset, size=t.size)
        return placed


class _Cursor:
    """Reads the header front to back; every read is checked against the end of the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self.at = 0

    def header(self) -> tuple[int, int]:
        """Number of tensors and of metadata keys."""
        if self._content[:4] != _MAGIC:
            raise ModelError("not a GGUF file (it does not begin with GGUF); give a .gguf file")
        self.at = 4
        version = int(self.scalar("I"))
        if version & 0xFFFF == 0:
            raise ModelError("a big-endian GGUF file; convert it to little-endian (gguf_convert_endian)")
        if version not in _VERSIONS:
            raise ModelError(f"GGUF version {version} is not supported; convert the model to version 3")
        tensors, keys = int(self.scalar("Q")), int(self.scalar("Q"))
        # A tensor and a key take at least 8 bytes each: more than fit are not worth trying.
        self._claim(8 * (tensors + keys))
        return tensors, keys

    def scalar(self, code: str) -> Any:
        size = struct.calcsize(code)
        self._claim(size)
        (value,) = struct.unpack_from(f"<{code}", self._content, self.at)
        self.at += size
        return value

    def string(self) -> str:
        length = int(self.scalar("Q"))
        self._claim(length)
        raw = self._content[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"damaged file: a string at byte {self.at - length:,} is not UTF-8; {_AGAIN}") from error

    def value(self, kind: int) -> Any:
        """A metadata value: a number, bool, string, list of strings, or array of numbers."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(self._code(kind))

    def tensor(self) -> GgufTensor:
        """A tensor whose offset counts from the end of the header."""
        name = self.string()
        count = int(self.scalar("I"))
        if not 1 <= count <= _MOST_DIMENSIONS:
            raise ModelError(f"damaged file: tensor '{name}' has {count} dimensions; {_AGAIN}")
        extents = [int(self.scalar("Q")) for _ in range(count)]
        number, offset = int(self.scalar("I")), int(self.scalar("Q"))
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelError(
                f"tensor '{name}': type number {number} is unknown; convert the model to Q4_1 or Q8_0"
            ) from error
        block, size = GGML_QUANT_SIZES[kind]
        elements = 1
        for extent in extents:
            elements *= extent
        if not elements or extents[0] % block:
            raise ModelError(f"damaged file: tensor '{name}' of type {kind.name} has extents {extents}; {_AGAIN}")
        shape = tuple(reversed(extents))  # the file lists the fastest extent first
        return GgufTensor(name=name, shape=shape, kind=kind, offset=offset, size=elements // block * size)

    def _array(self) -> Any:
        kind, count = int(self.scalar("I")), int(self.scalar("Q"))
        if kind == _STRING:
            self._claim(8 * count)
            return [self.string() for _ in range(count)]
        code = self._code(kind)
        self._claim(struct.calcsize(code) * count)
        found = np.frombuffer(self._content, np.dtype(code).newbyteorder("<"), count, self.at)
        self.at += found.nbytes
        return found

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ModelError(f"damaged file: metadata of type {kind} at byte {self.at:,}; {_AGAIN}")
        return _SCALARS[kind]

    def _claim(self, size: int) -> None:
        """Fail unless ``size`` more bytes exist."""
        if self.at + size > len(self._content):
            raise ModelError(f"damaged or truncated GGUF file: it ends at byte {len(self._content):,}; {_AGAIN}")


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelError(f"an empty file; {_AGAIN}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror}); check the path") from error
