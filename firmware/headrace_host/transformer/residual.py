"""The residual stream of a run: bf16 rows, kept in the scratchpad or, where they are many, in DDR."""

from __future__ import annotations

from headrace.isa import DType
from headrace_host.compiler.operands import Location
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import add
from headrace_host.transformer.quantiser import STEP
from headrace_host.transformer.tensors import OPERANDS, VECTORS, Arena, Tensor


class Residual:
    """``rows`` rows of ``width`` elements, first those in DDR at ``home``."""

    def __init__(self, image: KernelImage, arena: Arena, home: Location, rows: int, width: int, *, keep: bool) -> None:
        self._image, self._arena, self._home = image, arena, home
        self._rows, self._width, self._keep = rows, width, keep
        self._held: Tensor | None = None

    def start(self, rows: Tensor) -> None:
        """Begin with ``rows``, all of them, which this takes over."""
        if self._keep:
            self._held = rows
        else:
            self._store(rows, 0)

    def read(self, first: int, count: int) -> Tensor:
        """Rows in the scratchpad; give them back with `release`."""
        if self._held is not None:
            return self._held
        bank = VECTORS if self._keep else OPERANDS
        tensor = self._arena.new("residual", count, self._width, DType.BF16, bank=bank)
        self._image.memory.load(self._home, first, first + count, tensor.view, 0)
        if self._keep:
            self._held = tensor
        return tensor

    def release(self, tensor: Tensor) -> None:
        """The end of the use of what `read` gave."""
        if tensor is not self._held:
            self._arena.free(tensor)

    def add(self, rows: Tensor, first: int, count: int) -> None:
        """Add ``rows`` to the rows from ``first`` on; this takes ``rows`` over."""
        old = self.read(first, count)
        x, y = (RowTensor(view=t.view, kind=DType.BF16, steps=STEP) for t in (rows, old))
        emit_rows(self._image, add, {"a": x, "b": y}, [x], rows=(count,), elements=self._width)
        if self._keep:
            self._held = rows
            self._arena.free(old)
        else:
            self.release(old)
            self._store(rows, first)

    def _store(self, rows: Tensor, first: int) -> None:
        self._image.memory.store(self._home, first, first + rows.view.pixels, rows.view, 0)
        self._arena.free(rows)

    def finish(self) -> None:
        """STORE the rows that are still in the scratchpad."""
        if self._held is not None:
            self._store(self._held, 0)
            self._held = None
