"""Assembler and disassembler: commands as Python calls, as bytes and as text, all from the command description.

Text is one command a line, `NAME field=value ...`; indented lines continue a command, `#` starts a comment:

    LOAD ddr=0x1000 n0=4096 pix_bytes=16 signal=[0]
    MAC in_base=0 mode=A8W8 n_tiles=2
        wait=[0, 3] patch0=s2<<4@in_p0

Numbers are Python integers, values of enumerated fields may be names, tokens are lists. A patch is
`s<register><<<shift>@<field>`. A field that is not named takes its default: 0, or its smallest legal value if larger.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import SupportsInt

from .commands import BY_NAME, BY_OPCODE
from .fields import COMMAND_BYTES, Command, Field

__all__ = ["Program", "decode", "default", "encode", "field_range", "patch", "patched"]

_TOKEN_FIELDS = ("wait", "signal")
_PATCH_FIELDS = ("patch0", "patch1")
_PATCH_TEXT = re.compile(r"s(\d+)(?:<<(\d+))?@(\w+)")
_ITEM_TEXT = re.compile(r"(\w+)=(\[[^\]]*\]|\S+)")
_FIRST_PAYLOAD_WORD = 4

Value = SupportsInt | Iterable[int]


def field_range(f: Field) -> tuple[int, int]:
    """Smallest and largest value the bits of `f` can hold."""
    return (-(1 << (f.width - 1)), (1 << (f.width - 1)) - 1) if f.signed else (0, (1 << f.width) - 1)


def default(command: Command, f: Field) -> int:
    """Value of a field that is not given: the opcode, or 0, or the smallest legal value if that is larger."""
    if f.name == "opcode":
        return command.opcode
    return max(0, f.minimum) if isinstance(f.minimum, int) else 0


def patch(command_name: str, field_name: str, *, register: int, shift: int = 0) -> int:
    """Value of `patch0` or `patch1` that adds `scalar[register] << shift` to a field.

    The machine adds modulo 2^32 to the 32-bit word in which the field starts: a carry out of the field spoils its
    neighbours, and bits from 32 on of a wider field are not reached.

    Raises:
        ValueError: for a field of the header, or a register or shift that does not exist.
    """
    f = _field(_command(command_name), field_name)
    word, shift = f.offset // 32, shift + f.offset % 32
    if word < _FIRST_PAYLOAD_WORD or not 0 <= register < 16 or not 0 <= shift < 32:
        raise ValueError(f"{command_name}.{field_name}: cannot add scalar {register} shifted by {shift}")
    return 1 | shift << 1 | register << 6 | word << 10


def encode(command_name: str, **fields: Value) -> bytes:
    """The 128 bytes of a command. `wait` and `signal` take a mask or an iterable of token numbers.

    Raises:
        ValueError: for an unknown command or field, or a value its bits cannot hold, naming command and field.
    """
    command = _command(command_name)
    return _encode(command, _complete(command, fields))


def decode(raw: bytes) -> tuple[Command, dict[str, int]]:
    """Command and the value of every field.

    Raises:
        ValueError: for another length than 128 bytes, an unknown opcode or a bit set outside of the fields.
    """
    if len(raw) != COMMAND_BYTES:
        raise ValueError(f"a command has {COMMAND_BYTES} bytes, not {len(raw)}")
    word = int.from_bytes(raw, "little")
    if raw[0] not in BY_OPCODE:
        raise ValueError(f"no command has opcode {raw[0]}")
    command = BY_OPCODE[raw[0]]
    if word & ~command.defined_mask:
        raise ValueError(f"{command.name}: a reserved bit is set")
    return command, {f.name: _extract(word, f) for f in command.fields}


def patched(command: Command, values: dict[str, int], scalars: Mapping[int, int]) -> dict[str, int]:
    """Field values after the command's patches, which are then off; registers that `scalars` lacks are zero."""
    bits = int.from_bytes(_encode(command, values), "little")
    for patch_field in (command["patch0"], command["patch1"]):
        value = values[patch_field.name]
        if value & 1:
            shift, register, at = value >> 1 & 31, value >> 6 & 15, 32 * (value >> 10 & 31)
            word = (bits >> at) + (scalars.get(register, 0) << shift) & 0xFFFFFFFF
            bits = bits & ~(0xFFFFFFFF << at) | word << at
    return {f.name: _extract(bits, f) for f in command.fields} | {"patch0": 0, "patch1": 0}


class Program:
    """A sequence of commands in ring order, complete with every field."""

    def __init__(self) -> None:
        self._commands: list[tuple[Command, dict[str, int]]] = []

    def append(self, command_name: str, **fields: Value) -> int:
        """Add a command and return its index. Raises ValueError as `encode`."""
        command = _command(command_name)
        self._commands.append((command, _complete(command, fields)))
        return len(self._commands) - 1

    def __len__(self) -> int:
        return len(self._commands)

    def __iter__(self) -> Iterator[tuple[Command, dict[str, int]]]:
        return iter(self._commands)

    def __getitem__(self, index: int) -> tuple[Command, dict[str, int]]:
        return self._commands[index]

    def image(self) -> bytes:
        """The commands as they lie in the ring."""
        return b"".join(_encode(command, values) for command, values in self._commands)

    @classmethod
    def from_image(cls, image: bytes) -> "Program":
        """Inverse of `image`. Raises ValueError as `decode`, with the index of the command."""
        program = cls()
        for at in range(0, len(image), COMMAND_BYTES):
            try:
                program._commands.append(decode(image[at : at + COMMAND_BYTES]))
            except ValueError as error:
                raise ValueError(f"command {at // COMMAND_BYTES}: {error}") from error
        return program

    def text(self) -> str:
        """Assembly text, one command a line; fields that have their default value are left out."""
        return "".join(f"{_format(command, values)}\n" for command, values in self._commands)

    @classmethod
    def from_text(cls, text: str) -> "Program":
        """Inverse of `text`. Raises ValueError with the line number."""
        program = cls()
        for number, line in _logical_lines(text):
            name, _, rest = line.partition(" ")
            try:
                program.append(name, **_parse_items(_command(name), rest))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
        return program


def _command(name: str) -> Command:
    if name not in BY_NAME:
        raise ValueError(f"unknown command {name!r}; choose one of {', '.join(BY_NAME)}")
    return BY_NAME[name]


def _field(command: Command, name: str) -> Field:
    try:
        return command[name]
    except KeyError:
        raise ValueError(f"{command.name} has no field {name!r}") from None


def _complete(command: Command, given: dict[str, Value]) -> dict[str, int]:
    for name in given:
        _field(command, name)
    return {
        f.name: _value(command, f, given[f.name]) if f.name in given else default(command, f) for f in command.fields
    }


def _value(command: Command, f: Field, given: Value) -> int:
    where = f"{command.name}.{f.name}"
    if isinstance(given, Iterable):
        if f.name not in _TOKEN_FIELDS:
            raise ValueError(f"{where}: {given!r} is not an integer")
        tokens = list(given)
        if any(not 0 <= token < f.width for token in tokens) or len(set(tokens)) != len(tokens):
            raise ValueError(f"{where}: tokens {tokens} are not distinct numbers of 0..{f.width - 1}")
        return sum(1 << token for token in tokens)
    value = int(given)
    low, high = field_range(f)
    if f.name == "opcode" and value != command.opcode:
        raise ValueError(f"{where}: {value} is not the command's opcode {command.opcode}")
    if not low <= value <= high:
        raise ValueError(f"{where}: {value} does not fit {low}..{high}")
    return value


def _encode(command: Command, values: dict[str, int]) -> bytes:
    word = sum((values[f.name] & ((1 << f.width) - 1)) << f.offset for f in command.fields)
    return word.to_bytes(COMMAND_BYTES, "little")


def _extract(word: int, f: Field) -> int:
    value = word >> f.offset & ((1 << f.width) - 1)
    return value - (1 << f.width) if f.signed and value >> (f.width - 1) else value


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of every command: comments stripped, indented lines joined to the one before."""
    first = 0
    parts: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].rstrip()
        if not line:
            continue
        if not line[0].isspace() and parts:
            yield first, " ".join(parts)
            parts = []
        if not parts:
            first = number
        parts.append(line.strip())
    if parts:
        yield first, " ".join(parts)


def _parse_items(command: Command, text: str) -> dict[str, Value]:
    if _ITEM_TEXT.sub("", text).strip():
        raise ValueError(f"{command.name}: expected field=value, found {_ITEM_TEXT.sub('', text).strip()!r}")
    items: dict[str, Value] = {}
    for name, value in _ITEM_TEXT.findall(text):
        if name in items:
            raise ValueError(f"{command.name}.{name}: given twice")
        items[name] = _parse_value(command, _field(command, name), value)
    return items


def _parse_value(command: Command, f: Field, text: str) -> Value:
    where = f"{command.name}.{f.name}"
    try:
        if text.startswith("["):
            return [int(token, 0) for token in text[1:-1].split(",") if token.strip()]
        if f.name in _PATCH_FIELDS and (match := _PATCH_TEXT.fullmatch(text)):
            return patch(command.name, match[3], register=int(match[1]), shift=int(match[2] or 0))
        if f.enum is not None and text in f.enum.__members__:
            return f.enum[text]
        return int(text, 0)
    except ValueError as error:
        raise ValueError(f"{where}: cannot read {text!r} ({error})") from error


def _format(command: Command, values: dict[str, int]) -> str:
    items = [
        f"{f.name}={_format_value(command, f, values[f.name])}"
        for f in command.fields
        if values[f.name] != default(command, f)
    ]
    return " ".join((command.name, *items))


def _format_value(command: Command, f: Field, value: int) -> str:
    if f.name in _TOKEN_FIELDS:
        return "[" + ", ".join(str(i) for i in range(f.width) if value >> i & 1) + "]"
    if f.name in _PATCH_FIELDS:
        return _format_patch(command, value)
    if f.enum is not None and value in f.enum.__members__.values():
        return f.enum(value).name
    return hex(value) if f.name == "ddr" else str(value)


def _format_patch(command: Command, value: int) -> str:
    shift, register, word = value >> 1 & 31, value >> 6 & 15, value >> 10
    for f in command.fields:
        if f.offset // 32 == word >= _FIRST_PAYLOAD_WORD and value & 1 and f.offset % 32 == shift:
            return f"s{register}@{f.name}"
    for f in command.fields:
        if f.offset == word * 32 and word >= _FIRST_PAYLOAD_WORD and value & 1:
            return f"s{register}<<{shift}@{f.name}"
    return hex(value)
