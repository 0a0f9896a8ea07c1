"""Kernels from files, and what they become on a machine: passes, columns, beats."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from headrace.config import NpuConfig
from headrace.isa import Source
from headrace_host.errors import CompileError, HostError
from headrace_host.kernels.placement import Operation, Pass, Read
from headrace_host.kernels.row_running import RowLowering
from headrace_host.kernels.running import Lowering, Shape
from headrace_host.kernels.trace import Constant, Kernel


def load_kernel(source: str) -> Kernel:
    """The kernel ``FILE:NAME``, or the only one of ``FILE``.

    Raises:
        HostError: when there is no such file or kernel, or the file fails.
    """
    path, _, name = source.partition(":")
    if not Path(path).is_file():
        raise HostError(f"{path}: no such file; give FILE.py or FILE.py:NAME")
    try:
        content = runpy.run_path(path)
    except HostError:
        raise
    except Exception as error:
        raise HostError(f"{path}: fails with {type(error).__name__}: {error}") from error
    kernels = {n: value for n, value in content.items() if isinstance(value, Kernel)}
    if name:
        if name not in kernels:
            raise HostError(f"{path}: has no kernel '{name}'; it has {', '.join(kernels) or 'none'}")
        return kernels[name]
    if len(kernels) != 1:
        raise HostError(
            f"{path}: has several kernels; name one of {', '.join(kernels)}"
            if kernels
            else f"{path}: has no kernel; decorate a function with @kernel"
        )
    return next(iter(kernels.values()))


def parse_shape(text: str) -> Shape:
    """``rows,pixels,channels``."""
    try:
        rows, pixels, channels = (int(part) for part in text.split(","))
    except ValueError:
        rows = pixels = channels = 0
    if min(rows, pixels, channels) < 1:
        raise CompileError(f"shape '{text}' is not rows,pixels,channels; give 64,64,1, say")
    return Shape(rows, pixels, channels)


def lowered(kernel: Kernel, config: NpuConfig, shape: Shape) -> Lowering | RowLowering:
    """``kernel`` for images, or for rows if it has values of these."""
    if kernel.works_on_rows:
        return RowLowering(kernel, config, shape.rows, shape.pixels * shape.channels)
    lowering = Lowering(kernel, config, shape)
    lowering.lower()
    return lowering


def passes_table(lowering: Lowering | RowLowering) -> Table:
    """Rows are passes, one row each time its beats go through the columns."""
    columns = lowering.config.columns
    table = Table(title=f"{lowering.kernel.name} on {lowering.config.name}")
    for heading in ("pass", "x", "y", "result", *(f"column {n}" for n in range(columns))):
        table.add_column(heading)
    for number, each in enumerate(lowering.passes):
        reads = [_read(lowering, read) for read in each.reads]
        head = [str(number), reads[0], reads[1] if len(reads) == 2 else "", _result(lowering, each)]
        for first in range(0, len(each.operations), columns):
            cells = [_cell(operation) for operation in each.operations[first : first + columns]]
            table.add_row(*(head if first == 0 else [""] * 4), *cells, *[""] * (columns - len(cells)))
    return table


def passes_json(lowering: Lowering | RowLowering) -> dict[str, Any]:
    """The same for programs."""
    return {
        "kernel": lowering.kernel.name,
        "machine": lowering.config.name,
        "shape": list(lowering.shape),
        "beats": lowering.beats(),
        "passes": [
            {
                "reads": [_read(lowering, read) for read in each.reads],
                "result": _result(lowering, each),
                "contexts": each.contexts(lowering.config),
                "operations": [_cell(operation) for operation in each.operations],
            }
            for each in lowering.passes
        ],
    }


def _read(lowering: Lowering | RowLowering, read: Read) -> str:
    made = [each.output or f"t{n}" for n, each in enumerate(lowering.passes) if each.result is read.stream]
    name = read.stream.name or made[0]
    down, right = read.shift
    return f"{name} {down:+d},{right:+d}" if down or right else name


def _result(lowering: Lowering | RowLowering, each: Pass) -> str:
    """A temporary's name, or the type of a result, after its name if there are several."""
    if not each.output:
        return f"t{lowering.passes.index(each)}"
    elements = lowering.kernel.result_elements
    element = elements[each.output].__name__
    return f"{each.output}: {element}" if len(elements) > 1 else element


def _cell(operation: Operation | None) -> str:
    if operation is None:
        return "PASS"
    stream = operation.lane
    pairs = zip(operation.sources, stream.operands, strict=False)
    names = [_operand(source, operand) for source, operand in pairs] or ["x"]
    if stream.sh:
        names.append(str(stream.sh))
    text = f"{stream.op.name} {', '.join(names)}"
    if operation.stream.reduce:
        text = f"{operation.stream.reduce.name} {text}" if stream.op else f"{operation.stream.reduce.name} {names[0]}"
    return f"{'y' if operation.to_y else 'x'} = {text}"


def _operand(source: Source, operand: object) -> str:
    if not isinstance(operand, Constant):
        return source.name.lower()
    if operand.is_index:
        return "index"
    if operand.immediate is None:
        return "table" if operand.is_table else "channels"
    return f"{operand.patterns.view(np.float32):g}" if operand.is_float else str(operand.immediate)
