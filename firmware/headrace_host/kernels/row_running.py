"""Running a traced kernel over rows on a machine: arrays in, arrays out.

Elements are [rows, elements], values of rows [rows]. As many rows as the scratchpad holds are worked on at once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import NpuConfig
from headrace_host.compiler.layout import ELEMENT_BYTES
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.operands import Location
from headrace_host.device import open_device
from headrace_host.errors import CompileError
from headrace_host.kernels.evaluate import decode, encode, evaluate_rows
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.placement import Pass, passes
from headrace_host.kernels.row_kernels import row_kernel
from headrace_host.kernels.row_passes import RowKernel, Unit
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.running import ARRAYS
from headrace_host.kernels.trace import ELEMENTS, Kernel, Stream, is_of_row

Arrays = dict[str, NDArray[Any]]
MOST_ROWS = 1 << 10
"""Rows of a command."""


class RowLowering:
    """Lowers a kernel for ``rows`` rows of ``elements`` elements.

    Raises:
        CompileError: when a row does not fit the machine.
    """

    def __init__(self, kernel: Kernel, config: NpuConfig, rows: int, elements: int) -> None:
        self.kernel, self.config, self.rows, self.elements = kernel, config, rows, elements
        self.placed: RowKernel = row_kernel(kernel, config)

    @cached_property
    def passes(self) -> list[Pass]:
        """What `placed` was made of."""
        return passes(self.kernel, self.config, contexts=1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, elements of a row."""
        return self.rows, self.elements

    def _bytes(self, element: type[Stream]) -> int:
        """Bytes of a row; values of rows are L equal lanes."""
        return ELEMENT_BYTES[ELEMENTS[element]] * (self.config.vector_lanes if is_of_row(element) else self.elements)

    def beats(self) -> int:
        """Beats that enter column 0."""
        row = -(-self.elements // self.config.vector_lanes)
        return self.rows * sum(1 if each.unit is Unit.row else row for each in self.placed.passes)

    def lower(self) -> tuple[CompiledModel, dict[str, Location], dict[str, Location]]:
        """The command image, inputs and results in DDR."""
        kernel = self.kernel
        size = self.rows * sum(self._bytes(e) for e in (*kernel.elements.values(), *kernel.result_elements.values()))
        image = KernelImage(self.config, area_bytes=-(-(size + 1024) // 4096) * 4096)
        image.begin(kernel.name)
        sources, results = (
            {name: image.external(name, self.rows, self._bytes(element)) for name, element in some.items()}
            for some in (kernel.elements, kernel.result_elements)
        )
        most = self._strip(image)
        every = {**sources, **results}
        held = {n: image.reserve(n, most, at.channels, prefer=int(n in results)) for n, at in every.items()}
        kinds = {name: ELEMENTS[e] for name, e in {**kernel.elements, **kernel.result_elements}.items()}
        tensors = {name: RowTensor(view=view, kind=kinds[name], steps=((1, 0),)) for name, view in held.items()}
        for first in range(0, self.rows, most):
            last = min(first + most, self.rows)
            for name, source in sources.items():
                image.memory.load(source, first, last, held[name], 0)
            given = {name: tensors[name] for name in sources}
            wanted = [tensors[name] for name in results]
            emit_rows(image, kernel, given, wanted, rows=(last - first,), elements=self.elements)
            for name, result in results.items():
                image.memory.store(result, first, last, held[name], 0)
        return image.finish(kernel.name), sources, results

    def _strip(self, image: KernelImage) -> int:
        """Most rows whose tensors and records the scratchpad holds."""
        kernel, lanes = self.kernel, self.config.vector_lanes
        sizes = [(self._bytes(element), 0) for element in kernel.elements.values()]
        sizes += [(self._bytes(element), 1) for element in kernel.result_elements.values()]
        for unit, kind, other in self.placed.records.values():
            sizes.append((ELEMENT_BYTES[kind] * (lanes if unit is Unit.row else self.elements), int(other)))
        most = image.most_rows(min(self.rows, MOST_ROWS), lambda rows: [(rows, size, bank) for size, bank in sizes])
        if not most:
            raise CompileError(
                f"kernel '{kernel.name}': a row of {self.elements} elements does not fit the scratchpad of machine "
                f"'{self.config.name}'"
            )
        return most


def run_rows(kernel: Kernel, inputs: Arrays, config: NpuConfig, *, backend: str = "golden") -> Arrays:
    """The results of a kernel on a machine, by name.

    Raises:
        CompileError: when inputs are not what the kernel takes, or it does not fit the machine.
    """
    rows, elements = _shape(kernel, inputs)
    model, sources, results = RowLowering(kernel, config, rows, elements).lower()
    device = open_device(backend, model)
    for name, source in sources.items():
        array = inputs[name]
        content = np.repeat(array[:, None], config.vector_lanes, axis=1) if array.ndim == 1 else array
        assert source.ddr is not None
        device.write(source.ddr, np.ascontiguousarray(content).tobytes())
    device.execute(model)
    found = {}
    for name, element in kernel.result_elements.items():
        at = results[name]
        assert at.ddr is not None
        array = np.frombuffer(device.read(at.ddr, at.pixels * at.channels), ARRAYS[element]).reshape(rows, -1)
        found[name] = array[:, 0] if is_of_row(element) else array
    return found


def expected_rows(kernel: Kernel, inputs: Arrays) -> Arrays:
    """What `run_rows` must return, computed in plain numpy."""
    rows, elements = _shape(kernel, inputs)
    patterns = [decode(e, inputs[n].reshape(rows, -1)) for n, e in kernel.elements.items()]
    found = {}
    for name, values in evaluate_rows(kernel, patterns).items():
        element = kernel.result_elements[name]
        width = 1 if is_of_row(element) else elements
        array = encode(element, np.ascontiguousarray(np.broadcast_to(values, (rows, width)))).view(ARRAYS[element])
        found[name] = array[:, 0] if is_of_row(element) else array
    return found


def _shape(kernel: Kernel, inputs: Arrays) -> tuple[int, int]:
    """Rows and elements of a row."""
    if set(inputs) != set(kernel.elements):
        raise CompileError(f"kernel '{kernel.name}' takes the inputs {', '.join(kernel.elements)}")
    shapes = {inputs[n].shape for n, element in kernel.elements.items() if not is_of_row(element)}
    rows, elements = shapes.pop() if len(shapes) == 1 and len(next(iter(shapes))) == 2 else (0, 0)
    for name, element in kernel.elements.items():
        array = inputs[name]
        wanted = (rows,) if is_of_row(element) else (rows, elements)
        if array.dtype != ARRAYS[element] or array.shape != wanted or not array.size:
            raise CompileError(
                f"kernel '{kernel.name}': input '{name}' must be {np.dtype(ARRAYS[element])} "
                f"{'[rows]' if is_of_row(element) else '[rows, elements]'}, all of one shape; it is {array.dtype} "
                f"{list(array.shape)}"
            )
    return rows, elements
