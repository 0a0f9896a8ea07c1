"""What the generators of layers share: memory, random choices, and the commands every layer needs."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headrace.config import NpuConfig
from headrace.isa import CONTEXT_WORDS, Dest, MemIndex, Reduce, encode_context

from .allocate import Ddr, NoRoom, OnChip, Tensor
from .chains import Chain
from .operation import Operation, Patch
from .space import Ids, Space, unite

_NO_REDUCTION = 7  # a code without a name

__all__ = ["Atom", "Builder", "Layer", "PlacedChain"]


@dataclass
class Atom:
    """Commands that follow each other in the ring; `weights`, WEIGHT commands and SCALARs they need, come some time
    before, in the order of their MACs.

    `holds`: the weights stay in the ring, so the next MAC must be this layer's. `stored`: the layer stores the weights
    itself before.
    """

    operations: list[Operation]
    weights: list[Operation] = field(default_factory=list)
    holds: bool = False
    stored: bool = False

    @property
    def multiplies(self) -> bool:
        """Whether there is a MAC command."""
        return any(operation.name == "MAC" for operation in self.operations)


@dataclass
class Layer:
    """Atoms in order, and what the layer leaves on chip for later ones."""

    description: str
    atoms: list[Atom] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class PlacedChain:
    """A chain in contexts ctx .. ctx + wraps; `columns` are the column memory elements it reads.

    `across`: emitted beats have all lanes valid.
    """

    ctx: int
    wraps: int
    columns: Ids
    across: bool

    @property
    def fields(self) -> dict[str, int]:
        """Fields of the command that uses it."""
        return {"ctx": self.ctx, "wraps": self.wraps}


class Builder:
    """Makes one layer; every random choice comes from `rng`. `registers`: scalars no command uses yet."""

    def __init__(
        self,
        config: NpuConfig,
        space: Space,
        ddr: Ddr,
        chip: OnChip,
        rng: np.random.Generator,
        registers: list[int],
    ) -> None:
        self.config, self.space, self.ddr, self.chip, self.rng = config, space, ddr, chip, rng
        self.registers = registers
        self.layer = Layer("")
        self._unit = 0
        self._contexts: list[tuple[int, int]] = []  # first and count of the layer's contexts

    def new_unit(self) -> None:
        """Commands made from now on are kept or dropped together when a failing program is reduced."""
        self._unit += 1

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, low: int, high: int) -> int:
        """A random integer of low..high."""
        return int(self.rng.integers(low, high + 1))

    def chain_length(self, most: int) -> int:
        """A random number of stages, at most what all contexts hold."""
        return self.pick(1, min(most, self.config.columns * self.config.contexts))

    @property
    def has_tables(self) -> bool:
        """Whether a column memory may hold a table of 256 elements a lane, not too large for DDR."""
        return self.config.column_words >= 256 and self.config.vector_lanes <= 16

    def make(
        self,
        name: str,
        fields: dict[str, int],
        *,
        chain: PlacedChain | None = None,
        patches: tuple[Patch, ...] = (),
    ) -> Operation:
        """A command of the current unit, not yet in the layer; `chain`: what its contexts do."""
        fields = {k: int(v) for k, v in fields.items()}
        columns, across = (None, False) if chain is None else (chain.columns, chain.across)
        operation = Operation.make(self.space, name, fields, columns=columns, across=across, patches=patches)
        operation.unit = self._unit
        return operation

    def emit(self, name: str, fields: dict[str, int]) -> Operation:
        """A command as an atom of its own."""
        operation = self.make(name, fields)
        self.layer.atoms.append(Atom([operation]))
        return operation

    def fill(self, tensor: Tensor, *, first: int = 0, value: int | None = None) -> None:
        """Fill the channel bytes from `first` to the end of the last plane, of every pixel."""
        tail = tensor.planes * self.config.word_bytes - tensor.c0 - first
        if tail:
            view = tensor.view() | {"c0": tensor.c0 + first}
            value = self.pick(0, 255) if value is None else value
            self.emit("LOAD", view | {"n0": tail * tensor.pixels, "pix_bytes": tail, "fill": 1, "fill_value": value})

    def load_elements(self, dest: Dest, element: int, words: npt.NDArray[np.uint32]) -> None:
        """32-bit words from DDR to consecutive elements of column memories, contexts or group offset shifts."""
        data = words.tobytes()
        address = self.ddr.place_input(len(data), align=4)
        self.ddr.put(address, data)
        self.emit("LOAD", {"ddr": address, "n0": len(data), "dest": dest, "element": element, "pix_bytes": 4})

    def place(self, chain: Chain, *, idx_base: int, beats: int) -> PlacedChain:
        """Load a chain's contexts and vectors, spread over columns and, where longer than S, over sub-passes.

        Raises:
            NoRoom: also when a pass of so many beats cannot wrap.
        """
        config = self.config
        most_passes = config.contexts if beats <= config.gasket_beats else 1
        positions = self._positions(len(chain.stages), most_passes=most_passes)
        positions = self._with_sum(chain, positions, most_passes)
        wraps = max(positions, default=0) // config.columns
        ctx = self._take_contexts(wraps + 1)
        contexts = np.zeros((wraps + 1, config.columns, CONTEXT_WORDS), np.uint32)
        reads: list[Ids] = []
        for position, stage in zip(positions, chain.stages):
            sub_pass, column = divmod(position, config.columns)
            context = dict(stage.context)
            if stage.memory is not None:
                count = len(stage.memory)
                offset = idx_base if context.get("mem_index") == MemIndex.IDX else 0
                word = self.chip.column_words(column, count + offset)
                context["mem_base"] = word
                first = (column * config.column_words + word + offset) * config.vector_lanes
                self.load_elements(Dest.COLUMN, first, stage.memory.ravel())
                reads.append(self.space.column_word(column, word + offset + np.arange(count)))
            if not context.get("reduce") and self.chance(0.1):  # codes that do not reduce in this column
                context["reduce"] = _NO_REDUCTION if column == config.sum_column or self.chance(0.5) else Reduce.FSUM
            contexts[sub_pass, column] = encode_context(**{k: int(v) for k, v in context.items()})
        self.load_elements(Dest.CONTEXT, ctx * config.columns * CONTEXT_WORDS, contexts.ravel())
        return PlacedChain(ctx, wraps, unite(reads), chain.across)

    def _positions(self, stages: int, *, most_passes: int) -> list[int]:
        columns = self.config.columns
        passes = max(1, -(-stages // columns))
        if passes > most_passes:
            raise NoRoom
        if passes < most_passes and self.chance(0.15):
            passes += 1
        places = self.rng.choice(passes * columns, stages, replace=False)
        return sorted(int(i) for i in places)

    def _with_sum(self, chain: Chain, positions: list[int], most_passes: int) -> list[int]:
        """`positions`, or others with which FSUM, if the chain has it, is in its column."""
        at = [i for i, stage in enumerate(chain.stages) if stage.context.get("reduce") == Reduce.FSUM]
        columns, column = self.config.columns, self.config.sum_column
        if not at or positions[at[0]] % columns == column:
            return positions
        assert column is not None
        place = at[0] + (column - at[0]) % columns
        moved = [i if i < at[0] else place + i - at[0] for i in range(len(positions))]
        if moved[-1] >= most_passes * columns:
            raise NoRoom
        return moved

    def runs(self, count: int) -> int:
        """A divisor of `count`: often 1."""
        divisors = [d for d in range(2, count + 1) if count % d == 0]
        return int(self.rng.choice(divisors)) if divisors and self.chance(0.3) else 1

    def _take_contexts(self, count: int) -> int:
        """First of `count` contexts: new ones, or those of an earlier command of this layer."""
        used = [first for first, size in self._contexts if size >= count]
        if used and self.chance(0.2):
            return used[self.pick(0, len(used) - 1)]
        try:
            first = self.chip.contexts(count)
        except NoRoom:
            if not used:
                raise
            return used[-1]
        self._contexts.append((first, count))
        return first
