"""A damaged or unsupported model file gives one clear error, never a traceback of the flatbuffer library."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tflite

from headrace_host.errors import ModelError
from headrace_host.models.graph import Graph
from headrace_host.models.tflite_import import load_tflite, parse_tflite


def test_resnet8_structure(resnet8: Graph) -> None:
    operators = [node.operator for node in resnet8.nodes]
    assert operators.count("Conv2D") == 9
    assert operators.count("Add") == 3
    assert sum(resnet8.macs(node) for node in resnet8.nodes) == 12_501_632


def test_visual_wake_words_structure(wake_words: Graph) -> None:
    """The fp32 input and output of the file are left to the host: the graph begins and ends with their codes."""
    operators = [node.operator for node in wake_words.nodes]
    assert operators.count("Conv2D") == 14 and operators.count("DepthwiseConv") == 13 and operators[-1] == "Softmax"
    ends = [wake_words.tensors[name] for name in (*wake_words.inputs, *wake_words.outputs)]
    assert [(tensor.dtype, tensor.shape) for tensor in ends] == [("int8", (1, 96, 96, 3)), ("int8", (1, 2))]
    assert sum(wake_words.macs(node) for node in wake_words.nodes) == 7_489_664


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.tflite: cannot be read"):
        load_tflite(tmp_path / "absent.tflite")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3"])
def test_not_a_model(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"x\.tflite: "):
        parse_tflite(content, "x.tflite")


def test_truncated(resnet8_path: Path) -> None:
    content = resnet8_path.read_bytes()
    for size in range(0, len(content), len(content) // 40):
        with pytest.raises(ModelError, match="x: "):
            parse_tflite(content[:size], "x")


def test_random_damage_never_escapes(resnet8_path: Path) -> None:
    content = resnet8_path.read_bytes()
    seed = 7
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 30)):
            # Structure sits at both ends of the file; most of the middle is weights.
            position = rng.choice([rng.randrange(4000), len(content) - 1 - rng.randrange(8000)])
            damaged[position] = rng.randrange(256)
        try:
            parse_tflite(bytes(damaged), "x")
        except ModelError as error:
            assert "\n" not in str(error)


def test_unsupported_operator_is_named(resnet8_path: Path) -> None:
    content = bytearray(resnet8_path.read_bytes())
    model = tflite.Model.GetRootAs(content, 0)
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        if code.BuiltinCode() == tflite.BuiltinOperator.AVERAGE_POOL_2D:
            for slot in (4, 10):  # the deprecated one-byte field and the current one
                offset = code._tab.Offset(slot)
                if offset:
                    content[code._tab.Pos + offset] = tflite.BuiltinOperator.L2_POOL_2D
    with pytest.raises(ModelError, match=r"node 12 \(L2_POOL_2D '.*AvgPool'\): operator L2_POOL_2D is not supported"):
        parse_tflite(bytes(content), "x")
