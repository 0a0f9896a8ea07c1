"""GGUF files are read back as written; damaged ones give one clear error."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest

from headrace_host.errors import ModelError
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.gguf.reader import GgufFile

SEED = 20


def test_metadata_and_tensors(tmp_path: Path) -> None:
    path = tmp_path / "any.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    integers = {"u8": 200, "i8": -3, "u16": 60000, "i16": -300, "u32": 2**31, "i32": -(2**30), "u64": 2**40}
    add = (writer.add_uint8, writer.add_int8, writer.add_uint16, writer.add_int16, writer.add_uint32)
    for function, (key, value) in zip((*add, writer.add_int32, writer.add_uint64), integers.items()):
        function(key, value)
    others = {"yes": True, "half": 0.5, "text": "Grüße", "list": ["a", "", "bc"]}
    writer.add_bool("yes", True)
    writer.add_float64("half", 0.5)
    writer.add_string("text", "Grüße")
    writer.add_array("list", ["a", "", "bc"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_custom_alignment(64)
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("vector", np.ones(5, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = GgufFile(path)
    assert {key: file.metadata[key] for key in (integers | others)} == integers | others
    assert file.metadata["numbers"].tolist() == [1, -2, 3]
    tensor = file.tensors["matrix"]
    assert tensor.shape == (2, 3) and tensor.kind.name == "F32" and tensor.offset % 64 == 0
    assert np.array_equal(file.content(tensor).view("<f4"), matrix)
    assert file.tensors["vector"].shape == (5,) and file.tensors["vector"].kind.name == "F16"


def fails(path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=text) as caught:
        load_gguf(path)
    assert str(caught.value).startswith(str(path))


def test_foreign_files(tmp_path: Path, files: ModuleType) -> None:
    good = files.small(tmp_path).read_bytes()
    path = tmp_path / "bad.gguf"
    fails(path, b"", "empty")
    fails(path, b"TFL3" + good[4:], "not a GGUF file")
    fails(path, b"GGUF" + struct.pack("<I", 1) + good[8:], "version 1")
    fails(path, b"GGUF" + struct.pack(">I", 3) + good[8:], "big-endian")
    fails(path, good[:8] + struct.pack("<Q", 2**60) + good[16:], "truncated")
    fails(path, good[: len(good) - 33], "truncated file: tensor")
    with pytest.raises(ModelError, match="cannot be read"):
        load_gguf(tmp_path / "missing.gguf")


def test_damage_in_tables(tmp_path: Path, files: ModuleType) -> None:
    good = files.small(tmp_path).read_bytes()
    path = tmp_path / "bad.gguf"
    name = b"blk.1.ffn_up.weight"
    at = good.index(name) + len(name)  # then: number of extents, extents, type, offset
    fails(path, good[:at] + struct.pack("<I", 9) + good[at + 4 :], "9 dimensions")
    fails(path, good[: at + 4] + struct.pack("<Q", 33) + good[at + 12 :], "extents")
    fails(path, good[: at + 20] + struct.pack("<I", 999) + good[at + 24 :], "type number 999 is unknown")
    fails(path, good.replace(name, b"blk.0.ffn_up.weight"), "appears twice")
    key = b"llama.block_count"
    at = good.index(key) + len(key)
    fails(path, good[:at] + struct.pack("<I", 77) + good[at + 4 :], "metadata of type 77")
    fails(path, good.replace(b"llama.block_count", b"llama.\xff\xfeock_count"), "not UTF-8")


def test_random_damage_is_one_error_or_none(tmp_path: Path, files: ModuleType) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    good = np.frombuffer(files.small(tmp_path).read_bytes(), np.uint8)
    header = good.tobytes().index(b"blk.1.ffn_down.weight") + 60
    path, refused = tmp_path / "bad.gguf", 0
    for trial in range(150):
        bad = good.copy()
        bad[rng.integers(0, header, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bad.tobytes() if trial % 3 else bad[: rng.integers(1, len(bad))].tobytes())
        try:
            model = load_gguf(path)
            model.tokenizer.encode("the 12")
            model.tokenizer.chat([{"role": "user", "content": "x"}])
        except ModelError:
            refused += 1
    assert refused >= 50
