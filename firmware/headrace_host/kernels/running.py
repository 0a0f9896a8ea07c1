"""Running a traced kernel on a machine: images cut to strips of rows, one VECTOR command a pass and piece.

An image is [rows, pixels, channels], or [rows, channels] with one pixel a row. In the scratchpad a row is one pixel of
the machine, with a margin as wide as shifts reach: rows above are pixels before, pixels beside are channels beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace.isa import DType
from headrace_host.compiler.layout import ELEMENT_BYTES, View
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.operands import Location
from headrace_host.compiler.programs import place
from headrace_host.compiler.vector_pass import INT8, MAX_COUNT, Codes, Stream, emit_pass
from headrace_host.device import open_device
from headrace_host.errors import CompileError
from headrace_host.kernels import trace
from headrace_host.kernels.evaluate import decode, encode, evaluate
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.placement import Pass, passes, steps
from headrace_host.kernels.trace import ELEMENTS, Kernel

ARRAYS: dict[type[trace.Stream], Any] = {
    trace.I8: np.int8, trace.U8: np.uint8, trace.I16: np.int16,
    trace.BF16: np.uint16, trace.Int32: np.int32, trace.Float32: np.float32,
    trace.RowInt32: np.int32, trace.RowFloat32: np.float32,
}  # fmt: skip
"""Arrays of elements; bf16 as its 16 bits."""
ROW_BYTES = (1 << 16) - 1
"""Largest row that the fields of commands hold."""


class Shape(NamedTuple):
    """Rows, pixels of a row and channels of a pixel."""

    rows: int
    pixels: int
    channels: int


def reaches(kernel: Kernel) -> dict[int, tuple[int, int]]:
    """For each stream by its id how many rows and pixels away inputs are read."""
    found: dict[int, tuple[int, int]] = {}
    for stream in trace.ordered(kernel.result):
        below = [found[id(each)] for each in trace.streams(stream.operands)] or [(0, 0)]
        down, right = (max(each[i] for each in below) + abs(stream.shift[i]) for i in (0, 1))
        found[id(stream)] = (down, right)
    return found


class Lowering:
    """Lowers a kernel for images of one shape."""

    def __init__(self, kernel: Kernel, config: NpuConfig, shape: Shape) -> None:
        if kernel.works_on_rows:
            raise CompileError(f"kernel '{kernel.name}' has values of rows or several results; run it with run_rows")
        self.kernel, self.config, self.shape = kernel, config, shape
        self.passes = passes(kernel, config)
        self._reach = reaches(kernel)
        self.margin = self._reach[id(kernel.result)]
        self._pixels = shape.pixels + 2 * self.margin[1]
        self._kind = {id(s): ELEMENTS[e] for s, e in zip(kernel.inputs, kernel.elements.values(), strict=True)}
        self._last_use = {id(read.stream): n for n, each in enumerate(self.passes) for read in each.reads}
        widest = self._pixels * shape.channels * 4
        if widest > ROW_BYTES:
            raise CompileError(f"kernel '{kernel.name}': a row of {widest} bytes in 32 bits is too long; cut the image")
        for stream in trace.ordered(kernel.result):
            for operand in stream.operands:
                self._check(operand)

    def _check(self, operand: trace.Stream | trace.Constant) -> None:
        if isinstance(operand, trace.Constant) and not operand.is_table and operand.immediate is None:
            count = len(operand.patterns)
            if count != self.shape.channels:
                raise CompileError(
                    f"kernel '{self.kernel.name}': channels() of {count} values, the image has {self.shape.channels}"
                )

    def row_bytes(self, kind: DType) -> int:
        """Bytes of a row with its margin."""
        return self._pixels * self.shape.channels * ELEMENT_BYTES[kind]

    def _result_bytes(self) -> int:
        return self.shape.pixels * self.shape.channels * ELEMENT_BYTES[ELEMENTS[self.kernel.result_element]]

    def beats(self) -> int:
        """Beats that enter column 0, those that wrap included."""
        total = 0
        for each in self.passes:
            down, right = self._reach[id(each.result)]
            # Overlap of strips is left out.
            rows = self.shape.rows + 2 * (self.margin[0] - down)
            elements = (self._pixels - 2 * right) * self.shape.channels
            total += rows * -(-elements // self.config.vector_lanes) * each.contexts(self.config)
        return total

    def lower(self) -> tuple[CompiledModel, list[Location], Location]:
        """The command image, the inputs with their margins, and the result, in DDR."""
        kernel, shape = self.kernel, self.shape
        rows = shape.rows + 2 * self.margin[0]
        size = rows * sum(self.row_bytes(kind) for kind in self._kind.values()) + shape.rows * self._result_bytes()
        image = KernelImage(self.config, area_bytes=-(-(size + 64 * len(self._kind) + 64) // 4096) * 4096)
        image.begin(kernel.name)
        sources = [
            image.external(name, rows, self.row_bytes(kind))
            for name, kind in zip(kernel.elements, self._kind.values(), strict=True)
        ]
        result = image.external(f"{kernel.name} result", shape.rows, self._result_bytes())
        slots, count = self._slots()
        most = self._strip_rows(image, count)
        tall = most + 2 * self.margin[0]
        scratch = image.memory.scratch
        held = {
            id(stream): scratch(location.name, tall, location.channels, prefer=0)
            for stream, location in zip(kernel.inputs, sources, strict=True)
        }
        # Both streams of a pass are read fastest from different sub-banks.
        temporaries = [
            scratch(f"temporary {n}", tall, self.row_bytes(DType.B32), prefer=1 - n % 2) for n in range(count)
        ]
        held |= {stream: temporaries[slot] for stream, slot in slots.items()}
        out = scratch(result.name, most, result.channels, prefer=1)
        for first in range(0, shape.rows, most):
            last = min(first + most, shape.rows)
            for stream, source in zip(kernel.inputs, sources, strict=True):
                image.memory.load(source, first, last + 2 * self.margin[0], held[id(stream)], 0)
            for each in self.passes:
                self._emit(image, each, held, out, last - first)
            image.memory.store(result, first, last, out, 0)
        return image.finish(kernel.name), sources, result

    def _slots(self) -> tuple[dict[int, int], int]:
        """A buffer for every temporary, shared by those that are not needed at once; how many there are."""
        busy: list[int] = []
        slots: dict[int, int] = {}
        for number, each in enumerate(self.passes[:-1]):
            free = [slot for slot, until in enumerate(busy) if until < number]
            slot = free[0] if free else len(busy)
            busy[slot : slot + 1] = [self._last_use[id(each.result)]]
            slots[id(each.result)] = slot
        return slots, len(busy)

    def _strip_rows(self, image: KernelImage, temporaries: int) -> int:
        """Most rows of a strip whose buffers the scratchpad holds."""

        def buffers(rows: int) -> list[tuple[int, int, int]]:
            tall = rows + 2 * self.margin[0]
            found = [(tall, self.row_bytes(kind), 0) for kind in self._kind.values()]
            found += [(tall, self.row_bytes(DType.B32), 1 - n % 2) for n in range(temporaries)]
            return [*found, (rows, self._result_bytes(), 1)]

        rows = image.most_rows(min(self.shape.rows, MAX_COUNT), buffers)
        if not rows:
            raise CompileError(
                f"kernel '{self.kernel.name}': a row does not fit the scratchpad of machine '{self.config.name}'; "
                "cut the image"
            )
        return rows

    def _emit(self, image: KernelImage, each: Pass, held: dict[int, View], out: View, rows: int) -> None:
        """Commands of one pass over a strip of ``rows`` rows of the result."""
        config, channels, lanes = self.config, self.shape.channels, self.config.vector_lanes
        down, right = self._reach[id(each.result)]
        width = self._pixels - 2 * right
        memory = image.memory
        program = place(config, steps(each, config, width))
        installed = image.constants.install(program, {}, memory.label)
        is_last = each.result is self.kernel.result
        kind = ELEMENTS[self.kernel.result_element] if is_last else DType.B32
        view, origin = (out, (down, right)) if is_last else (held[id(each.result)], (0, 0))
        tall = rows + 2 * (self.margin[0] - down)
        beats = -(-width * channels // lanes)
        limit = config.gasket_beats if installed.wraps else MAX_COUNT * MAX_COUNT
        for row, count, beat, length in _pieces(tall, beats, limit):
            elements = min(length * lanes, width * channels - beat * lanes)
            first = right * channels + beat * lanes
            loops = {"n0": length, "n1": count, "m0": length, "m1": count, "idx_loop": 0, "idx_base": beat}
            streams = []
            for prefix, read in zip("xy", each.reads, strict=False):
                source = self._kind.get(id(read.stream), DType.B32)
                size = ELEMENT_BYTES[source]
                at = first + read.shift[1] * channels
                loops |= {f"{prefix}_dc0": lanes * size, f"{prefix}_dp1": 1}
                pixel = down + row + read.shift[0]
                streams.append(Stream(held[id(read.stream)], pixel, count, at * size, elements * size, source))
            size = ELEMENT_BYTES[kind]
            loops |= {"o_dc0": lanes * size, "o_dp1": 1}
            channel = (first - origin[1] * channels) * size
            target = Stream(view, down + row - origin[0], count, channel, elements * size, kind)
            y = streams[1] if len(streams) == 2 else None
            codes = Codes(0, 0, -1) if kind is DType.U8 else INT8
            emit_pass(memory, installed, loops, streams[0], target, y=y, codes=codes, channels=elements)


def _pieces(rows: int, beats: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """(first row, rows, first beat, beats) of commands of at most ``limit`` beats."""
    width, height = min(beats, limit), max(1, limit // beats)
    for row in range(0, rows, height):
        for beat in range(0, beats, width):
            yield row, min(height, rows - row), beat, min(width, beats - beat)


def _padded(kernel: Kernel, inputs: dict[str, NDArray[Any]]) -> tuple[Shape, list[NDArray[Any]], tuple[int, ...]]:
    """The images with their margins, as [rows, pixels, channels], and the shape that was given."""
    down, right = reaches(kernel)[id(kernel.result)]
    if set(inputs) != set(kernel.elements):
        raise CompileError(f"kernel '{kernel.name}' takes the inputs {', '.join(kernel.elements)}")
    given = next(iter(inputs.values())).shape
    images = []
    for name, element in kernel.elements.items():
        array = inputs[name]
        if array.dtype != ARRAYS[element] or array.ndim not in (2, 3) or array.shape != given or not array.size:
            raise CompileError(
                f"kernel '{kernel.name}': input '{name}' must be {np.dtype(ARRAYS[element])} [rows, channels] or "
                f"[rows, pixels, channels], all of one shape; it is {array.dtype} {list(array.shape)}"
            )
        image = array if array.ndim == 3 else array[:, None, :]
        margin = ((down, down), (right, right), (0, 0))
        images.append(np.pad(image, margin, mode="edge" if kernel.repeats_border else "constant"))
    shape = Shape(given[0], given[1] if len(given) == 3 else 1, given[-1])
    return shape, images, given


def run(kernel: Kernel, inputs: dict[str, NDArray[Any]], config: NpuConfig, *, backend: str = "golden") -> NDArray[Any]:
    """The kernel on a machine: arrays by argument name, all of one shape, which is that of the result."""
    shape, images, given = _padded(kernel, inputs)
    model, sources, result = Lowering(kernel, config, shape).lower()
    device = open_device(backend, model)
    for source, image in zip(sources, images, strict=True):
        assert source.ddr is not None
        device.write(source.ddr, np.ascontiguousarray(image).tobytes())
    device.execute(model)
    assert result.ddr is not None
    content = device.read(result.ddr, result.pixels * result.channels)
    return np.frombuffer(content, ARRAYS[kernel.result_element]).reshape(given)


def expected(kernel: Kernel, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """What `run` must return, computed in plain numpy."""
    shape, images, given = _padded(kernel, inputs)
    down, right = reaches(kernel)[id(kernel.result)]
    patterns = [decode(e, image) for e, image in zip(kernel.elements.values(), images, strict=True)]
    whole = evaluate(kernel, patterns)
    inner = np.ascontiguousarray(whole[down : down + shape.rows, right : right + shape.pixels])
    return encode(kernel.result_element, inner).view(ARRAYS[kernel.result_element]).reshape(given)
