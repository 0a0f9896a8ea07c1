"""Writes what is generated from the descriptions of commands and registers: two manuals and the C header.

python -m headrace.isa.generate           write the files
python -m headrace.isa.generate --check   exit with status 1, naming them, when files are stale
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from enum import IntEnum
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from headrace import isa
from headrace.isa.fields import Command, Field
from headrace.registers import COMMAND_SET_VERSION, COUNTERS, ID_VALUE, REGISTERS, VERSION_VALUE, State
from headrace.regmap import Reg

__all__ = ["OUTPUTS", "render", "stale"]

ROOT = Path(__file__).parents[3]

OUTPUTS: dict[str, str] = {
    "docs/isa.md": "isa.md.j2",
    "docs/registers.md": "registers.md.j2",
    "firmware/c/headrace.h": "headrace.h.j2",
}
"""Generated file, relative to the repository's root, and its template."""

REGISTER_GROUPS = (
    (0x000, "Identification"),
    (0x020, "Control"),
    (0x080, "Address windows"),
    (0x100, "Scalar registers"),
    (0x200, "Counters"),
)

FIELD_ENUMS: tuple[type[IntEnum], ...] = (isa.Dest, isa.Precision, isa.DType, isa.ScalarOp)
CONTEXT_ENUMS: tuple[type[IntEnum], ...] = (isa.DataflowOp, isa.Source, isa.Reduce)


class _Symbol:
    """Stands for a machine when a limit is to be printed rather than computed."""

    def __init__(self, text: str = "") -> None:
        self._text = text

    def __getattr__(self, name: str) -> "_Symbol":
        return _Symbol(name)

    def __sub__(self, other: int) -> "_Symbol":
        return _Symbol(f"{self._text} - {other}")

    def __str__(self) -> str:
        return self._text


def legal(f: Field) -> str:
    """Legal values of a field as text; machine parameters by name."""
    symbol: object = _Symbol()
    low: object = -(1 << (f.width - 1)) if f.signed else 0
    high: object = (1 << (f.width - f.signed)) - 1 if f.enum is None else int(max(f.enum))
    if f.minimum is not None:
        low = f.minimum(symbol) if callable(f.minimum) else f.minimum  # type: ignore[arg-type]
    if f.maximum is not None:
        high = f.maximum(symbol) if callable(f.maximum) else int(f.maximum)  # type: ignore[arg-type]
    if f.width > 24 and f.minimum is None and f.maximum is None:
        return "signed" if f.signed else "any"
    return str(low) if str(low) == str(high) else f"{low}..{high}"


def meanings(enum: type[IntEnum]) -> dict[str, str]:
    """Comments beside the members of an enumeration, by name."""
    return {
        name: doc for name, doc in re.findall(r"^ +(\w+) = \d+(?:  # (.*))?$", inspect.getsource(enum), re.MULTILINE)
    }


def _register_groups() -> list[tuple[str, list[Reg]]]:
    """Headings and the registers below them."""

    def title(reg: Reg) -> str:
        return max(start for start in REGISTER_GROUPS if start[0] <= reg.offset)[1]

    return [(name, list(regs)) for name, regs in groupby(REGISTERS, key=title)]


def bits(f: Field) -> str:
    """Bit range of a field in its command, highest first."""
    return str(f.offset) if f.width == 1 else f"{f.offset + f.width - 1}..{f.offset}"


def payload(command: Command) -> list[Field]:
    """Fields that are not part of the common header."""
    header = {f.name for f in header_fields()}
    return [f for f in command.fields if f.name not in header]


def header_fields() -> list[Field]:
    """Fields all commands begin with."""
    first = isa.COMMANDS[0].fields
    return [f for f in first if all(f.name in {g.name for g in c.fields} and c[f.name] == f for c in isa.COMMANDS)]


def render(template: str) -> str:
    """Text of a generated file."""
    environment = Environment(
        loader=PackageLoader("headrace.isa"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    functions: tuple[Callable[..., object], ...] = (legal, meanings, bits, payload)
    return environment.get_template(template).render(
        {f.__name__: f for f in functions},
        commands=isa.COMMANDS,
        header=header_fields(),
        contexts=isa.CONTEXT_FIELDS,
        context_words=isa.CONTEXT_WORDS,
        command_bytes=isa.COMMAND_BYTES,
        field_enums=FIELD_ENUMS,
        context_enums=CONTEXT_ENUMS,
        Cause=isa.Cause,
        Engine=isa.Engine,
        State=State,
        registers=REGISTERS,
        groups=_register_groups(),
        counters=COUNTERS,
        id_value=ID_VALUE,
        version_value=VERSION_VALUE,
        command_set_version=COMMAND_SET_VERSION,
        windows=sum(reg.name.endswith("_FLAGS") for reg in REGISTERS),
        scalars=sum(reg.name.startswith("SCALAR") for reg in REGISTERS),
    )


def stale(root: Path = ROOT) -> list[str]:
    """Generated files that are missing or differ from what the descriptions say."""
    return [
        name
        for name, template in OUTPUTS.items()
        if not (root / name).exists() or (root / name).read_text() != render(template)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    if parser.parse_args().check:
        for name in (old := stale()):
            print(f"{name} is stale: run python -m headrace.isa.generate", file=sys.stderr)
        return 1 if old else 0
    for name in stale():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(render(OUTPUTS[name]))
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
