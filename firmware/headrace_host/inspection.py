"""What a language model consists of, as its file stores it and as the machine holds it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from headrace_host.kernels.row_weights import RowWeights
from headrace_host.models.language import LanguageModel, Matrix, machine_bits

_LAYER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, kw_only=True)
class MatrixCost:
    """One matrix: its form in the file and on the machine (codes and scales)."""

    name: str
    outputs: int
    inputs: int
    stored_type: str
    stored_bytes: int
    machine_form: str
    machine_bytes: int

    @classmethod
    def of(cls, matrix: Matrix) -> MatrixCost:
        """Converts ``matrix``, as its values may decide the form."""
        outputs, inputs = matrix.shape
        weights = matrix.machine()
        return cls(
            name=matrix.name,
            outputs=outputs,
            inputs=inputs,
            stored_type=matrix.stored_type,
            stored_bytes=matrix.stored_bytes,
            machine_form="INT8 rows" if isinstance(weights, RowWeights) else "INT4 groups",
            machine_bytes=-(-machine_bits(weights) // 8),
        )

    @property
    def bits(self) -> float:
        """Bits a weight on the machine."""
        return 8 * self.machine_bytes / (self.outputs * self.inputs)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A model and the costs of each of its matrices."""

    model: LanguageModel
    costs: list[MatrixCost]

    @classmethod
    def of(cls, model: LanguageModel) -> Inspection:
        """Every matrix of ``model``, one in memory at a time."""
        return cls(model=model, costs=[MatrixCost.of(matrix) for matrix in model.matrices])

    @property
    def weights(self) -> int:
        """Number of weights of all matrices."""
        return sum(cost.outputs * cost.inputs for cost in self.costs)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all matrices in the file."""
        return sum(cost.stored_bytes for cost in self.costs)

    @property
    def machine_bytes(self) -> int:
        """Bytes of all matrices on the machine."""
        return sum(cost.machine_bytes for cost in self.costs)

    @property
    def bits(self) -> float:
        """Bits a weight on the machine, over all matrices."""
        return 8 * self.machine_bytes / self.weights

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        model = self.model
        return {
            "name": model.name,
            "architecture": model.architecture,
            "dimensions": asdict(model.dimensions),
            "rotary_pairs": model.rotary.pairs.value,
            "epsilon": model.epsilon,
            "tied": model.tied,
            "matrices": [asdict(cost) | {"bits_per_weight": cost.bits} for cost in self.costs],
            "total": {
                "weights": self.weights,
                "stored_bytes": self.stored_bytes,
                "machine_bytes": self.machine_bytes,
                "bits_per_weight": self.bits,
            },
        }

    def summary(self) -> str:
        """The model in one line."""
        d = self.model.dimensions
        return (
            f"{self.model.name}: {self.model.architecture}, {d.layers} layers of width {d.width}, {d.heads} heads and "
            f"{d.kv_heads} keys of {d.head_width}, hidden {d.hidden}, vocabulary {d.vocabulary:,}, context "
            f"{d.context:,}{', tied head' if self.model.tied else ''}"
        )

    def table(self) -> Table:
        """A row for equal matrices of all layers, and a total."""
        table = Table()
        for column in ("matrices", "name", "outputs x inputs", "in the file", "bytes", "on the machine", "bytes"):
            table.add_column(column, justify="right" if column in ("matrices", "bytes") else "left")
        table.add_column("bits a weight", justify="right")
        kinds = {cost: self._kind(cost) for cost in self.costs}
        count = Counter(kinds.values())
        for kind, number in count.items():
            costs = [cost for cost in self.costs if kinds[cost] == kind]
            stored, machine = sum(c.stored_bytes for c in costs), sum(c.machine_bytes for c in costs)
            name, outputs, inputs, stored_type, form = kind
            extents, bits = f"{outputs} x {inputs}", f"{costs[0].bits:.2f}"
            table.add_row(str(number), name, extents, stored_type, f"{stored:,}", form, f"{machine:,}", bits)
        table.add_section()
        totals = f"{self.stored_bytes:,}", "", f"{self.machine_bytes:,}", f"{self.bits:.2f}"
        table.add_row(str(len(self.costs)), "total", f"{self.weights:,}", "", *totals)
        return table

    @staticmethod
    def _kind(cost: MatrixCost) -> tuple[str, int, int, str, str]:
        """Matrices of which this is equal share a row."""
        name = _LAYER.sub(".*.", cost.name)
        return name, cost.outputs, cost.inputs, cost.stored_type, cost.machine_form
