"""Traced kernels over rows, placed on a machine: the passes that are emitted for them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, DType
from headrace_host.compiler.constants import Vectors
from headrace_host.compiler.programs import Step
from headrace_host.errors import CompileError
from headrace_host.kernels.placement import Operation, Pass, passes, step_of
from headrace_host.kernels.row_passes import Place, RowKernel, RowPass, Unit
from headrace_host.kernels.trace import Constant, Kernel, Stream


@lru_cache(256)
def row_kernel(kernel: Kernel, config: NpuConfig) -> RowKernel:
    """The passes of ``kernel``; its temporaries are records t0, t1, ...

    Raises:
        CompileError: when an operation does not fit the machine, or reads at a distance.
    """
    placed = passes(kernel, config, contexts=1)
    outputs = [each.output or f"t{number}" for number, each in enumerate(placed)]
    names = {id(each.result): output for each, output in zip(placed, outputs, strict=True)}
    names |= {id(stream): name for stream, name in zip(kernel.inputs, kernel.elements, strict=True)}
    records = {
        output: (_unit(each.result), DType.B32, not each.result.of_row)
        for each, output in zip(placed, outputs)
        if not each.output
    }
    row_passes = [_row_pass(kernel, each, output, names) for each, output in zip(placed, outputs, strict=True)]
    return RowKernel(kernel.name, tuple(row_passes), records, tuple(kernel.result_elements))


def _unit(stream: Stream) -> Unit:
    return Unit.row if stream.of_row else Unit.element


def _row_pass(kernel: Kernel, each: Pass, output: str, names: dict[int, str]) -> RowPass:
    if any(read.shift != (0, 0) for read in each.reads):
        raise CompileError(f"kernel '{kernel.name}': reads at a distance and values of rows do not go together")
    places = [Place(names[id(read.stream)], _unit(read.stream)) for read in each.reads]
    constants: Vectors = {}
    return RowPass(
        unit=Unit.row if each.of_rows else Unit.element,
        steps=tuple(_step(operation, constants) for operation in each.operations),
        x=places[0],
        y=places[1] if len(places) == 2 else None,
        out=Place(output, _unit(each.result)),
        constants=constants,
    )


def _step(operation: Operation | None, constants: Vectors) -> Step:
    """The lane operation; a vector of channels becomes one of ``constants``."""
    if operation is None:
        return Step(op=DataflowOp.PASS)
    vectors = [c for c in operation.lane.operands if isinstance(c, Constant) and c.patterns.ndim]
    if not vectors:
        return step_of(operation)
    if vectors[0].is_table:
        raise CompileError("tables and values of rows do not go together; compute the function")
    name = f"channels {len(constants)}"
    constants[name] = vectors[0].patterns.view(np.float32) if vectors[0].is_float else vectors[0].patterns
    return step_of(operation, vector=name)
