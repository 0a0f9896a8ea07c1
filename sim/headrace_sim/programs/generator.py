"""Random valid programs by seed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import COMMAND_BYTES

from .allocate import Ddr, NoRoom, OnChip, Tensor
from .builder import Atom, Builder, Layer
from .case import Access, Case, Output
from .convolution import convolution
from .operation import Operation
from .order import add_tokens
from .patches import RESERVED
from .schedule import interleave, ring_order
from .space import Ids, Space
from .transfers import walks
from .vectors import vector

__all__ = ["Plan", "plan_program", "random_program"]

_RING_LOG2 = 8
_INPUT_BYTES = 192 << 10
_OUTPUT_BYTES = 96 << 10
_TRIES = 20
_MOST_TOKENS = 255


@dataclass(frozen=True)
class Plan:
    """A program before tokens: atoms of every layer in ring order. `drop` makes smaller programs of it."""

    config: NpuConfig
    seed: int
    space: Space
    ddr: Ddr
    atoms: tuple[Atom, ...]
    layers: tuple[str, ...]

    def units(self) -> list[tuple[int, int]]:
        """(layer, unit) of all commands, in ring order of their first."""
        return list(dict.fromkeys((o.layer, o.unit) for atom in self.atoms for o in atom.operations))

    def case(self, keep: Collection[tuple[int, int]] | None = None) -> Case:
        """Tokens, command image and memory of the program, or of those units of it."""
        rng = np.random.default_rng([self.seed, 1])
        chosen = set(self.units() if keep is None else keep)
        atoms = [a for a in self.atoms if all((o.layer, o.unit) in chosen for o in a.operations)]
        operations = ring_order(atoms, queue_depth=self.config.queue_depth, rng=rng)
        end_value = int(rng.integers(1, 2**32))
        operations.append(Operation.make(self.space, "END", {"value": end_value}))
        if len(operations) > _MOST_TOKENS:
            raise NoRoom
        add_tokens(operations, self.space, rng)
        image = b"".join(operation.encode() for operation in operations)
        log2 = max(0, (len(operations) - 1).bit_length())
        ring = self.ddr.base + int(rng.integers(0, ((1 << _RING_LOG2) - (1 << log2)) + 1)) * COMMAND_BYTES
        contents = self.ddr.contents.copy()
        contents[ring - self.ddr.base : ring - self.ddr.base + len(image)] = np.frombuffer(image, np.uint8)
        return Case(
            config=self.config,
            seed=self.seed,
            ddr_base=self.ddr.base,
            ddr=contents,
            ring_base=ring,
            ring_log2=log2,
            commands=len(operations),
            end_value=end_value,
            windows=_windows(self.ddr, rng, self.config.windows),
            outputs=_outputs(operations, self.space),
            description=self.layers,
        )


def random_program(config: NpuConfig, seed: int, *, layers: int = 4, ddr_base: int = 0) -> Case:
    """A valid program: at most `layers` layers, convolutions, vector passes and transfers, some at the same time.

    Every byte the program reads was loaded, filled or computed before, so results do not depend on what memories held.
    Equal arguments give equal programs.
    """
    return plan_program(config, seed, layers=layers, ddr_base=ddr_base).case()


def plan_program(config: NpuConfig, seed: int, *, layers: int = 4, ddr_base: int = 0) -> Plan:
    """The program of `random_program` before it is ordered and encoded."""
    rng = np.random.default_rng([seed, 0])
    ddr = Ddr(
        rng,
        base=ddr_base,
        ring_bytes=COMMAND_BYTES << _RING_LOG2,
        input_bytes=_INPUT_BYTES,
        output_bytes=_OUTPUT_BYTES,
    )
    space = Space(config, ddr_base=ddr.base, ddr_bytes=ddr.end - ddr.base)
    made: list[Layer] = []
    atoms: list[Atom] = []
    kept: tuple[Tensor, ...] = ()
    budget = 200
    registers = list(range(config.scalars - RESERVED, config.scalars))
    while len(made) < layers:
        chip = OnChip(config, rng, kept)
        phase: list[Layer] = []
        for _ in range(min(int(rng.integers(1, 4)), layers - len(made))):
            layer = _random_layer(config, space, ddr, chip, rng, len(made) + len(phase), kept, registers)
            size = 0 if layer is None else sum(len(a.operations) + len(a.weights) for a in layer.atoms)
            if layer is not None and size <= budget:
                phase.append(layer)
                budget -= size
        if not phase:
            break
        atoms += interleave(phase, rng)
        made += phase
        results = [t for layer in phase for t in layer.results]
        kept = tuple(t for t in results if rng.random() < 0.6)
    _check_initialised(space, atoms)
    return Plan(config, seed, space, ddr, tuple(atoms), tuple(layer.description for layer in made))


def _random_layer(
    config: NpuConfig,
    space: Space,
    ddr: Ddr,
    chip: OnChip,
    rng: np.random.Generator,
    number: int,
    sources: tuple[Tensor, ...],
    registers: list[int],
) -> Layer | None:
    """A layer that fits, or None after some attempts."""
    for _ in range(_TRIES):
        build = Builder(config, space, ddr, chip, rng, registers)
        free = chip.snapshot()
        try:
            _kind(build, sources)(build)
        except NoRoom:
            chip.restore(free)
            continue
        for atom in build.layer.atoms:
            for operation in (*atom.operations, *atom.weights):
                operation.layer = number
                operation.fields["label"] = number << 8 | operation.unit
        return build.layer
    return None


def _kind(build: Builder, sources: tuple[Tensor, ...]) -> Callable[[Builder], None]:
    draw = build.rng.random()
    source = sources[build.pick(0, len(sources) - 1)] if sources and build.chance(0.5) else None
    if draw < 0.45:
        suits = source is not None and not source.c0
        return lambda b: convolution(b, source if suits else None)
    if draw < 0.8:
        return lambda b: vector(b, source)
    return walks


def _check_initialised(space: Space, atoms: list[Atom]) -> None:
    """Raise ValueError if a command reads what no earlier one wrote (DDR is all initialised)."""
    written = np.zeros(space.size, bool)
    written[space.first_ddr :] = True
    for atom in atoms:
        for operation in atom.operations:
            if not written[operation.reads].all():
                missing: Ids = operation.reads[~written[operation.reads]]
                raise ValueError(f"{operation.name} of layer {operation.layer} reads ids {missing[:8]}, never written")
            written[operation.writes] = True


def _windows(ddr: Ddr, rng: np.random.Generator, count: int) -> tuple[Access, ...]:
    page = ddr.PAGE
    windows = [
        Access(ddr.base // page, ddr.input // page, read=True, write=False),
        Access(ddr.input // page, ddr.output // page, read=True, write=False),
        Access(ddr.output // page, ddr.end // page, read=True, write=True),
    ]
    windows += [Access(0, 0, read=True, write=True)] * (count - len(windows))
    return tuple(windows[i] for i in rng.permutation(len(windows)))


def _outputs(operations: list[Operation], space: Space) -> tuple[Output, ...]:
    """Ranges of DDR addresses each command writes."""
    out = []
    for index, operation in enumerate(operations):
        ids = operation.writes[operation.writes >= space.first_ddr]
        if ids.size:
            addresses = ids - space.first_ddr + space.ddr_base
            breaks = np.flatnonzero(np.diff(addresses) > 1)
            firsts, lasts = addresses[[0, *(breaks + 1)]], addresses[[*breaks, -1]]
            out += [Output(int(a), int(b) + 1, index, operation.layer) for a, b in zip(firsts, lasts)]
    return tuple(out)
