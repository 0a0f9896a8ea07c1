"""One command of a random program with everything needed to order and encode it."""

from dataclasses import dataclass, field

from headrace.isa import BY_NAME, Engine
from headrace.isa.assembler import Value, default, encode, patch

from .footprint import footprint
from .space import Ids, Space, unite

__all__ = ["Operation", "Patch"]


@dataclass(frozen=True)
class Patch:
    """The machine adds scalar[register] << shift, which will be `value` << shift, to a field."""

    field: str
    register: int
    value: int
    shift: int = 0


@dataclass
class Operation:
    """A command: `fields` as the engine sees them (complete, after patching), what it touches, where it belongs.

    `unit` numbers commands that only make sense together (a convolution's weights, MAC and epilogue).
    """

    name: str
    fields: dict[str, int]
    reads: Ids
    writes: Ids
    patches: tuple[Patch, ...] = ()
    layer: int = 0
    unit: int = 0
    wait: set[int] = field(default_factory=set)
    signal: set[int] = field(default_factory=set)

    @classmethod
    def make(
        cls,
        space: Space,
        name: str,
        fields: dict[str, int],
        *,
        columns: Ids | None = None,
        across: bool = False,
        patches: tuple[Patch, ...] = (),
    ) -> "Operation":
        """Complete the fields with defaults and enumerate the footprint.

        `columns`: column memory read by contexts; `across`: contexts merge lanes.

        Raises:
            ValueError: when the machine would report an address out of range.
        """
        complete = {f.name: default(BY_NAME[name], f) for f in BY_NAME[name].fields} | fields
        reads, writes = footprint(space, name, complete, across=across)
        registers = [space.scalar(p.register) for p in patches]
        reads = unite([reads, *registers, *([] if columns is None else [columns])])
        return cls(name=name, fields=complete, reads=reads, writes=writes, patches=patches)

    @property
    def engine(self) -> Engine:
        """The engine that executes the command."""
        return BY_NAME[self.name].engine

    def encode(self) -> bytes:
        """The 128 bytes, with what patches will add taken out of the fields."""
        fields: dict[str, Value] = {**self.fields, "wait": self.wait, "signal": self.signal}
        for number, p in enumerate(self.patches):
            f = BY_NAME[self.name][p.field]
            raw = self.fields[p.field] - (p.value << p.shift)
            low = raw & ((1 << min(f.width, 32)) - 1)
            if f.width > 32:
                raw = low | self.fields[p.field] >> 32 << 32
            elif f.signed and low >> (f.width - 1):
                raw = low - (1 << f.width)
            else:
                raw = low
            fields[p.field] = raw
            fields[f"patch{number}"] = patch(self.name, p.field, register=p.register, shift=p.shift)
        return encode(self.name, **fields)
