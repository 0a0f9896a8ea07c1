"""Import of quantised TFLite models (full integer, int8 inputs and outputs)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from headrace_host.errors import ModelError
from headrace_host.models.graph import (
    DTYPES,
    Add,
    AvgPool,
    Concat,
    Conv2D,
    DepthwiseConv,
    FullyConnected,
    Graph,
    MaxPool,
    Node,
    Padding,
    Pair,
    Quantize,
    Reshape,
    Resize,
    Softmax,
    Tensor,
)

_TYPES = {
    tflite.TensorType.INT8: "int8",
    tflite.TensorType.UINT8: "uint8",
    tflite.TensorType.INT32: "int32",
    tflite.TensorType.FLOAT32: "float32",
}
_IDENTIFIER = b"TFL3"


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


_OPERATORS = _names(tflite.BuiltinOperator)
_TENSOR_TYPES = _names(tflite.TensorType)
_ACTIVATIONS = _names(tflite.ActivationFunctionType)


def load_tflite(path: Path) -> Graph:
    """Read the TFLite file ``path``; raise `ModelError` when it is damaged or holds something unsupported."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return parse_tflite(content, path.name)


def parse_tflite(content: bytes, name: str) -> Graph:
    """Build the graph of the TFLite flatbuffer ``content``; ``name`` stands for the file in messages."""
    if content[4:8] != _IDENTIFIER:
        raise ModelError(f"{name}: not a TFLite model (identifier TFL3 is missing); give a .tflite file")
    try:
        return _Importer(content, name).graph()
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:  # the flatbuffer reader raises whatever a wrong offset leads to
        raise ModelError(f"{name}: damaged or truncated TFLite file ({error}); fetch or convert it again") from error


class _Importer:
    """One pass over the first subgraph of a model."""

    def __init__(self, content: bytes, name: str) -> None:
        model = tflite.Model.GetRootAs(content, 0)
        if model.SubgraphsLength() != 1:
            raise ModelError(f"has {model.SubgraphsLength()} subgraphs; convert it without control flow")
        self._limit = len(content)
        self._name = name
        self._model = model
        self._subgraph = model.Subgraphs(0)
        self._tensors: list[Tensor] = []
        self._extra: dict[str, Tensor] = {}
        self._float_inputs: set[str] = set()
        self._codes: dict[str, Tensor] = {}  # int8 tensor of each fp32 input or output

    def graph(self) -> Graph:
        """The subgraph as a `Graph`."""
        count = self._subgraph.TensorsLength()
        if count > self._limit:
            raise ModelError("damaged file: more tensors than bytes")
        self._tensors = [self._tensor(index) for index in range(count)]
        listed = [self._at(int(i), "input list") for i in self._subgraph.InputsAsNumpy()]
        self._float_inputs = {tensor.name for tensor in listed if tensor.dtype == "float32"}
        built = [self._node(index) for index in range(self._subgraph.OperatorsLength())]
        inputs = [self._codes.get(tensor.name, tensor) for tensor in listed]
        listed = [self._at(int(i), "output list") for i in self._subgraph.OutputsAsNumpy()]
        outputs = [self._codes.get(tensor.name, tensor) for tensor in listed]
        for tensor, allowed in (*((t, ("int8", "uint8")) for t in inputs), *((t, ("int8",)) for t in outputs)):
            if tensor.dtype not in allowed:
                raise ModelError(
                    f"tensor '{tensor.name}': network inputs and outputs must be {' or '.join(allowed)}, "
                    f"not {tensor.dtype}; convert with inference_input_type and inference_output_type = int8"
                )
        return Graph(
            name=Path(self._name).stem,
            tensors={tensor.name: tensor for tensor in self._tensors} | self._extra,
            nodes=tuple(node for node in built if node is not None),
            inputs=tuple(tensor.name for tensor in inputs),
            outputs=tuple(tensor.name for tensor in outputs),
        )

    def _tensor(self, index: int) -> Tensor:
        raw = self._subgraph.Tensors(index)
        # TFLite names need not be unique; the index makes them so.
        name = f"{index}:{(raw.Name() or b'').decode('utf-8', 'replace').rsplit(';', 1)[-1]}"
        dtype = _TYPES.get(raw.Type())
        if dtype is None:
            found = _TENSOR_TYPES.get(raw.Type(), raw.Type())
            raise ModelError(f"tensor '{name}': type {found} is not supported; convert to full integer int8")
        shape = tuple(int(extent) for extent in raw.ShapeAsNumpy()) if raw.ShapeLength() else ()
        scale, zero_points = _quantisation(raw)
        if (zero_points != zero_points[0]).any():
            raise ModelError(f"tensor '{name}': zero points differ between channels; quantise weights symmetrically")
        return Tensor(
            name=name,
            shape=shape,
            dtype=dtype,
            scale=scale,
            zero_point=int(zero_points[0]),
            data=self._constant(raw, name, shape, DTYPES[dtype]),
        )

    def _constant(self, raw: Any, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[np.generic] | None:
        if not 0 <= raw.Buffer() < self._model.BuffersLength():
            raise ModelError(f"tensor '{name}': names buffer {raw.Buffer()}, which does not exist; damaged file")
        buffer = self._model.Buffers(raw.Buffer())
        if raw.Buffer() == 0 or buffer.DataLength() == 0:
            return None
        content = buffer.DataAsNumpy().tobytes()
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if len(content) != size:
            raise ModelError(f"tensor '{name}': {len(content)} bytes of data, {size} needed; damaged or truncated file")
        return np.frombuffer(content, dtype).reshape(shape)

    def _at(self, index: int, where: str) -> Tensor:
        if not 0 <= index < len(self._tensors):
            raise ModelError(f"{where}: tensor {index} does not exist; damaged file")
        return self._tensors[index]

    def _node(self, index: int) -> Node | None:
        raw = self._subgraph.Operators(index)
        if not 0 <= raw.OpcodeIndex() < self._model.OperatorCodesLength():
            raise ModelError(f"node {index}: operator code {raw.OpcodeIndex()} does not exist; damaged file")
        code = self._model.OperatorCodes(raw.OpcodeIndex())
        # Files older than schema 3a hold the operator in the deprecated one-byte field only.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        operator = _OPERATORS.get(number, str(number))
        outputs = [self._at(int(i), f"node {index} ({operator})") for i in raw.OutputsAsNumpy()]
        if len(outputs) != 1:
            raise ModelError(f"node {index} ({operator}): has {len(outputs)} outputs, one is supported")
        where = f"node {index} ({operator} '{outputs[0].name}')"
        build = _BUILDERS.get(operator)
        if build is None:
            raise ModelError(
                f"{where}: operator {operator} is not supported; supported are {', '.join(sorted(_BUILDERS))}"
            )
        # Index -1 marks an absent optional input.
        inputs = [self._at(int(i), where) if i >= 0 else None for i in raw.InputsAsNumpy()]
        return build(self, _Call(raw, index, where, inputs, outputs[0]))

    def quantised_edge(self, real: Tensor, codes: Tensor, where: str) -> None:
        """``codes`` stand for the fp32 network input or output ``real``: the graph begins or ends with them."""
        outputs = {int(i) for i in self._subgraph.OutputsAsNumpy()}
        position = int(real.name.split(":", 1)[0])
        if real.dtype != "float32" or (real.name not in self._float_inputs and position not in outputs):
            raise ModelError(f"{where}: fp32 tensors inside a network are not supported; convert to full integer int8")
        self._codes[real.name] = codes

    def add_constant(self, tensor: Tensor) -> Tensor:
        """Register a tensor that the file does not hold."""
        self._extra[tensor.name] = tensor
        return tensor


class _Call:
    """One operator of the file with its tensors resolved."""

    def __init__(self, raw: Any, index: int, where: str, inputs: list[Tensor | None], output: Tensor) -> None:
        self.index, self.where, self.output = index, where, output
        self._raw, self._inputs = raw, inputs

    def input(self, position: int) -> Tensor:
        """The input at ``position``, which must be there."""
        tensor = self.optional(position)
        if tensor is None:
            raise ModelError(f"{self.where}: input {position} is missing; damaged file")
        return tensor

    def optional(self, position: int) -> Tensor | None:
        """The input at ``position`` or None."""
        return self._inputs[position] if position < len(self._inputs) else None

    @property
    def input_count(self) -> int:
        """Number of inputs listed."""
        return len(self._inputs)

    def options(self, kind: type) -> Any:
        """The operator's options read as ``kind``, a class of the flatbuffer schema."""
        table = self._raw.BuiltinOptions()
        if table is None:
            raise ModelError(f"{self.where}: options are missing; damaged file")
        options = kind()
        options.Init(table.Bytes, table.Pos)
        return options

    def common(self, *inputs: Tensor, unsigned: bool = False) -> dict[str, Any]:
        """Fields that every node has. All of ``inputs`` but biases must be int8; ``unsigned``: uint8 will do."""
        for tensor in (*inputs[:2], self.output):
            if tensor.dtype != "int8" and not (unsigned and tensor.dtype == "uint8" and tensor is not self.output):
                raise ModelError(
                    f"{self.where}: tensor '{tensor.name}' is {tensor.dtype}; convert to full integer int8"
                )
        return {
            "name": self.output.name,
            "index": self.index,
            "inputs": tuple(tensor.name for tensor in inputs),
            "output": self.output.name,
        }

    def clamp(self, function: int) -> dict[str, Any]:
        """The int8 range that a fused activation leaves."""
        name = _ACTIVATIONS.get(function, str(function))
        scale, zero = float(self.output.scalar_scale), self.output.zero_point
        bounds = {"NONE": (-128, 127), "RELU": (zero, 127), "RELU6": (zero, zero + round(6.0 / scale))}
        if name not in bounds:
            raise ModelError(f"{self.where}: fused activation {name} is not supported; use RELU or RELU6")
        low, high = bounds[name]
        return {"act_min": max(low, -128), "act_max": min(high, 127)}

    def window(self, options: Any, kernel: Pair, dilation: Pair) -> dict[str, Any]:
        """Kernel, stride, dilation and explicit padding of a windowed operator on the first input."""
        stride = Pair(options.StrideH(), options.StrideW())
        image = self.input(0)
        if len(image.shape) != 4 or min(*kernel, *stride, *dilation) < 1:
            raise ModelError(f"{self.where}: needs an NHWC image and positive kernel, stride and dilation")
        padding = Padding()
        if options.Padding() == tflite.Padding.SAME:
            top, bottom = _same(image.shape[1], kernel.y, stride.y, dilation.y)
            left, right = _same(image.shape[2], kernel.x, stride.x, dilation.x)
            padding = Padding(top, bottom, left, right)
        return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def _same(extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TFLite's SAME padding of one axis: the odd row goes to the end."""
    total = max((-(-extent // stride) - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


def _quantisation(raw: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    parameters = raw.Quantization()
    if parameters is None or parameters.ScaleLength() == 0:
        return np.ones(1, np.float32), np.zeros(1, np.int64)
    scale = np.array(parameters.ScaleAsNumpy(), np.float32)
    zero = np.array(parameters.ZeroPointAsNumpy(), np.int64) if parameters.ZeroPointLength() else np.zeros(1, np.int64)
    return scale, zero


def _bias(importer: _Importer, call: _Call, filters: int) -> Tensor:
    bias = call.optional(2)
    if bias is not None:
        return bias
    return importer.add_constant(
        Tensor(
            name=f"{call.output.name}/zero_bias",
            shape=(filters,),
            dtype="int32",
            scale=np.ones(1, np.float32),
            data=np.zeros(filters, np.int32),
        )
    )


def _conv(importer: _Importer, call: _Call) -> Node:
    options, image, weight = call.options(tflite.Conv2DOptions), call.input(0), call.input(1)
    if len(weight.shape) != 4 or len(image.shape) != 4 or image.shape[3] % weight.shape[3]:
        raise ModelError(f"{call.where}: weight {weight.shape} does not fit image {image.shape}")
    kernel = Pair(weight.shape[1], weight.shape[2])
    return Conv2D(
        **call.common(image, weight, _bias(importer, call, weight.shape[0])),
        **call.window(options, kernel, Pair(options.DilationHFactor(), options.DilationWFactor())),
        **call.clamp(options.FusedActivationFunction()),
        groups=image.shape[3] // weight.shape[3],
    )


def _depthwise(importer: _Importer, call: _Call) -> Node:
    options, image, weight = call.options(tflite.DepthwiseConv2DOptions), call.input(0), call.input(1)
    if len(weight.shape) != 4 or weight.data is None or len(image.shape) != 4 or weight.shape[3] != image.shape[3]:
        raise ModelError(f"{call.where}: weight {weight.shape} for image {image.shape}; only multiplier 1 is supported")
    kernel, channels = Pair(weight.shape[1], weight.shape[2]), weight.shape[3]
    taps = Tensor(
        name=f"{weight.name}/taps",
        shape=(channels, *kernel),
        dtype=weight.dtype,
        scale=weight.scale,
        zero_point=weight.zero_point,
        data=np.ascontiguousarray(weight.data[0].transpose(2, 0, 1)),
    )
    return DepthwiseConv(
        **call.common(image, importer.add_constant(taps), _bias(importer, call, channels)),
        **call.window(options, kernel, Pair(options.DilationHFactor(), options.DilationWFactor())),
        **call.clamp(options.FusedActivationFunction()),
    )


def _pool(kind: type[AvgPool] | type[MaxPool]) -> Callable[[_Importer, _Call], Node]:
    def build(importer: _Importer, call: _Call) -> Node:
        options = call.options(tflite.Pool2DOptions)
        kernel = Pair(options.FilterHeight(), options.FilterWidth())
        return kind(
            **call.common(call.input(0)),
            **call.window(options, kernel, Pair(1, 1)),
            **call.clamp(options.FusedActivationFunction()),
        )

    return build


def _fully_connected(importer: _Importer, call: _Call) -> Node:
    options, weight = call.options(tflite.FullyConnectedOptions), call.input(1)
    if options.WeightsFormat() != tflite.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise ModelError(f"{call.where}: shuffled weights are not supported; convert again for CPU int8")
    return FullyConnected(
        **call.common(call.input(0), weight, _bias(importer, call, weight.shape[0])),
        **call.clamp(options.FusedActivationFunction()),
    )


def _add(importer: _Importer, call: _Call) -> Node:
    options = call.options(tflite.AddOptions)
    return Add(**call.common(call.input(0), call.input(1)), **call.clamp(options.FusedActivationFunction()))


def _softmax(importer: _Importer, call: _Call) -> Node:
    return Softmax(**call.common(call.input(0)), beta=float(call.options(tflite.SoftmaxOptions).Beta()))


def _reshape(importer: _Importer, call: _Call) -> Node:
    return Reshape(**call.common(call.input(0)))


def _concat(importer: _Importer, call: _Call) -> Node:
    options = call.options(tflite.ConcatenationOptions)
    inputs = [call.input(position) for position in range(call.input_count)]
    if options.FusedActivationFunction():
        raise ModelError(f"{call.where}: a fused activation on CONCATENATION is not supported; apply it to the inputs")
    return Concat(**call.common(*inputs), axis=options.Axis() % len(call.output.shape))


def _quantize(importer: _Importer, call: _Call) -> Node | None:
    source = call.input(0)
    if source.dtype == "float32":
        importer.quantised_edge(source, call.output, call.where)
        return None
    return Quantize(**call.common(source, unsigned=True))


def _dequantize(importer: _Importer, call: _Call) -> Node | None:
    importer.quantised_edge(call.output, call.input(0), call.where)
    return None


def _resize(importer: _Importer, call: _Call) -> Node:
    options, image = call.options(tflite.ResizeNearestNeighborOptions), call.input(0)
    shapes = image.shape, call.output.shape
    whole = all(len(shape) == 4 for shape in shapes) and all(shapes[1][i] % shapes[0][i] == 0 for i in (1, 2))
    if not whole or options.AlignCorners():
        raise ModelError(
            f"{call.where}: {shapes[0]} to {shapes[1]} is not an enlargement by whole factors; "
            "resize by whole factors without align_corners"
        )
    # With whole factors half-pixel centres choose the same pixels.
    factor = Pair(shapes[1][1] // shapes[0][1], shapes[1][2] // shapes[0][2])
    return Resize(**call.common(image), factor=factor)


_BUILDERS: dict[str, Callable[[_Importer, _Call], Node | None]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool(AvgPool),
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _pool(MaxPool),
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SOFTMAX": _softmax,
}
