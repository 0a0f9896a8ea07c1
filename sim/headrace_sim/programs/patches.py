"""Commands that take addresses and positions from scalar registers."""

from headrace.isa import ScalarOp

from .builder import Atom, Builder, PlacedChain
from .operation import Operation, Patch

__all__ = ["RESERVED", "emit_patched", "patched", "patched_weight"]

RESERVED = 4  # the last registers, each written once in a program
_WORD = 1 << 32
_POSITIONS = ("p0", "x_p0", "o_p0", "out_p0", "in_p0")


def emit_patched(build: Builder, name: str, fields: dict[str, int], *, chain: PlacedChain | None = None) -> None:
    """Emit a command as an atom, sometimes after SCALAR commands that hold parts of its operands."""
    build.layer.atoms.append(Atom(patched(build, name, fields, chain=chain)))


def patched(build: Builder, name: str, fields: dict[str, int], *, chain: PlacedChain | None = None) -> list[Operation]:
    """A command, sometimes with its address or a pixel taken from scalar registers, and the SCALARs before it."""
    candidates: dict[str, tuple[int, int]] = {}
    if "ddr" in fields:
        candidates["ddr"] = (build.pick(0, _WORD - 1), build.pick(0, 6))
    position = next((p for p in _POSITIONS if p in fields), None)
    if position is not None and build.chance(0.5):
        candidates[position] = (build.pick(0, fields[position]), 0)
    patches: list[Patch] = []
    operations: list[Operation] = []
    if build.chance(0.4):
        for field, (value, shift) in candidates.items():
            register = build.pick(0, build.config.scalars - RESERVED - 1)
            if all(p.register != register for p in patches):
                operations += _set_scalar(build, register, value)
                patches.append(Patch(field, register, value, shift))
    operations.append(build.make(name, fields, chain=chain, patches=tuple(patches)))
    return operations


def patched_weight(build: Builder, fields: dict[str, int]) -> list[Operation]:
    """A WEIGHT command, sometimes with an address from a register that no other command writes.

    A SCALAR that wrote the register again would wait for the WEIGHT, which may wait for a MAC that is not yet fetched.
    """
    if not build.registers or build.chance(0.8):
        return [build.make("WEIGHT", fields)]
    register, value = build.registers.pop(), build.pick(0, _WORD - 1)
    scalar = build.make("SCALAR", {"dst": register, "op": ScalarOp.SET, "imm": _signed(value)})
    return [scalar, build.make("WEIGHT", fields, patches=(Patch("ddr", register, value),))]


def _set_scalar(build: Builder, register: int, value: int) -> list[Operation]:
    """SCALAR commands after which the register holds `value`."""
    if build.chance(0.5):
        return [build.make("SCALAR", {"dst": register, "op": ScalarOp.SET, "imm": _signed(value)})]
    first = build.pick(-(2**31), 2**31 - 1)
    return [
        build.make("SCALAR", {"dst": register, "op": ScalarOp.SET, "imm": first}),
        build.make("SCALAR", {"dst": register, "src": register, "op": ScalarOp.ADD, "imm": _signed(value - first)}),
    ]


def _signed(value: int) -> int:
    """The 32-bit pattern of `value` as a signed number."""
    return (value + (1 << 31)) % _WORD - (1 << 31)
