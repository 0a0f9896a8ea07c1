"""Vocabulary of register descriptions, free of any hardware library.

One `RegMap` drives the register bank, the C header and the manual.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["Access", "Reg", "RegField", "RegMap"]

WORD_BYTES = 4
WORD_BITS = 32


class Access(Enum):
    """What the host can do with a register."""

    RO = "RO"  # the machine writes it, the host reads it; host writes are ignored
    RW = "RW"  # the host writes and reads it
    W1 = "W1"  # writing 1 to a bit does something at once; reads as 0
    W1C = "W1C"  # the machine sets bits, the host clears those to which it writes 1


@dataclass(frozen=True, kw_only=True)
class RegField:
    """Bits `lsb` .. `lsb + width - 1` of a register. Bits outside of a register's fields are 0 and ignore writes."""

    name: str
    lsb: int
    width: int
    doc: str


@dataclass(frozen=True, kw_only=True)
class Reg:
    """A 32-bit register at a byte offset.

    `hardware` lets the machine load an RW register too; its write wins over the host's in the same cycle.
    """

    name: str
    offset: int
    access: Access
    doc: str
    fields: tuple[RegField, ...] = ()
    hardware: bool = False

    @property
    def mask(self) -> int:
        """Bits that exist."""
        return sum(((1 << f.width) - 1) << f.lsb for f in self.fields)

    @property
    def width(self) -> int:
        """Bits up to and including the highest that exists."""
        return self.mask.bit_length()

    def __getitem__(self, name: str) -> RegField:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(f"register {self.name} has no field {name!r}")


class RegMap:
    """Registers by name and by offset, in order of offset.

    Raises:
        ValueError: for registers that overlap, are misaligned, lie outside the address space, have no or overlapping
            fields, and for names that occur twice.
    """

    def __init__(self, name: str, regs: tuple[Reg, ...], *, address_bits: int = 12) -> None:
        self.name = name
        self.address_bits = address_bits
        self.regs = tuple(sorted(regs, key=lambda reg: reg.offset))
        self._by_name = {reg.name: reg for reg in self.regs}
        offsets = [reg.offset for reg in self.regs]
        if len(self._by_name) != len(self.regs) or len(set(offsets)) != len(offsets):
            raise ValueError(f"{name}: two registers have the same name or offset")
        for reg in self.regs:
            self._check(reg)

    def _check(self, reg: Reg) -> None:
        if reg.offset % WORD_BYTES or not 0 <= reg.offset < 1 << self.address_bits:
            raise ValueError(f"{self.name}: register {reg.name} at {reg.offset:#x} is misaligned or out of reach")
        used = 0
        for f in reg.fields:
            bits = ((1 << f.width) - 1) << f.lsb
            if f.width < 1 or f.lsb < 0 or bits >> WORD_BITS or bits & used:
                raise ValueError(f"{self.name}: field {reg.name}.{f.name} overlaps or does not fit")
            used |= bits
        if not reg.fields:
            raise ValueError(f"{self.name}: register {reg.name} has no fields")
        if reg.hardware and reg.access is not Access.RW:
            raise ValueError(f"{self.name}: register {reg.name}: only RW registers take hardware loads")

    def __iter__(self) -> Iterator[Reg]:
        return iter(self.regs)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Reg:
        return self._by_name[name]
