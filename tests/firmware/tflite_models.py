"""TFLite models of one operator, so that its own interpreter can be asked for one rule at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tflite

TYPES = {"int8": tflite.TensorType.INT8, "uint8": tflite.TensorType.UINT8, "int32": tflite.TensorType.INT32}


@dataclass(frozen=True)
class Operand:
    """A tensor of the model; ``data`` makes it a constant, which has no quantisation when ``scale`` is 0."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int = 0
    data: np.ndarray | None = None


def build(
    operator: str, options: Callable[[Any], int], inputs: Sequence[Operand], output: Operand, *, version: int = 1
) -> bytes:
    """A model of ``operator`` (a name of the schema); ``options`` writes its options and is named like their table."""
    b = flatbuffers.Builder(1024)
    operands = [*inputs, output]
    buffers = [_buffer(b, b"")]
    tensors = []
    for index, operand in enumerate(operands):
        number = 0
        if operand.data is not None:
            number = len(buffers)
            buffers.append(_buffer(b, operand.data.tobytes()))
        tensors.append(_tensor(b, f"t{index}", operand, number))
    kind = getattr(tflite.BuiltinOptions, options.__name__)
    table = options(b)
    listed, result = _numbers(b, range(len(inputs))), _numbers(b, [len(inputs)])
    tflite.OperatorStart(b)
    tflite.OperatorAddInputs(b, listed)
    tflite.OperatorAddOutputs(b, result)
    tflite.OperatorAddBuiltinOptionsType(b, kind)
    tflite.OperatorAddBuiltinOptions(b, table)
    node = tflite.OperatorEnd(b)
    tensor_list = _tables(b, tflite.SubGraphStartTensorsVector, tensors)
    node_list = _tables(b, tflite.SubGraphStartOperatorsVector, [node])
    variable = _numbers(b, [i for i, operand in enumerate(inputs) if operand.data is None])
    result = _numbers(b, [len(inputs)])
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensor_list)
    tflite.SubGraphAddInputs(b, variable)
    tflite.SubGraphAddOutputs(b, result)
    tflite.SubGraphAddOperators(b, node_list)
    graph = tflite.SubGraphEnd(b)
    number = getattr(tflite.BuiltinOperator, operator)
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddBuiltinCode(b, number)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, number)
    tflite.OperatorCodeAddVersion(b, version)
    code = tflite.OperatorCodeEnd(b)
    graphs = _tables(b, tflite.ModelStartSubgraphsVector, [graph])
    codes = _tables(b, tflite.ModelStartOperatorCodesVector, [code])
    data = _tables(b, tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, data)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def answer(content: bytes, *values: np.ndarray) -> np.ndarray:
    """What TFLite's default interpreter computes; skips the test when it is not installed."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _tables(b: Any, start: Callable[[Any, int], None], offsets: Sequence[int]) -> int:
    start(b, len(offsets))
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _numbers(b: Any, values: Sequence[int]) -> int:
    return b.CreateNumpyVector(np.array(values, np.int32))


def _buffer(b: Any, content: bytes) -> int:
    data = b.CreateByteVector(content) if content else None
    tflite.BufferStart(b)
    if data is not None:
        tflite.BufferAddData(b, data)
    return tflite.BufferEnd(b)


def _tensor(b: Any, name: str, operand: Operand, buffer: int) -> int:
    shape, label, quantisation = _numbers(b, operand.shape), b.CreateString(name), None
    if operand.scale:
        scale = b.CreateNumpyVector(np.array([operand.scale], np.float32))
        zero = b.CreateNumpyVector(np.array([operand.zero_point], np.int64))
        tflite.QuantizationParametersStart(b)
        tflite.QuantizationParametersAddScale(b, scale)
        tflite.QuantizationParametersAddZeroPoint(b, zero)
        quantisation = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, TYPES[operand.dtype])
    tflite.TensorAddBuffer(b, buffer)
    tflite.TensorAddName(b, label)
    if quantisation is not None:
        tflite.TensorAddQuantization(b, quantisation)
    return tflite.TensorEnd(b)
