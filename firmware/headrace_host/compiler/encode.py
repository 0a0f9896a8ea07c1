"""Encoding of commands, checked against the machine's limits."""

from __future__ import annotations

from headrace.config import NpuConfig
from headrace.isa import BY_NAME
from headrace.isa.assembler import encode
from headrace_host.errors import CompileError


def encode_command(config: NpuConfig, name: str, values: dict[str, int]) -> bytes:
    """The 128 bytes of command ``name``; fields not in ``values`` take their defaults.

    Raises `CompileError` for a value outside the field's limits on this machine (a layer too large for a field).
    """
    command = BY_NAME[name]
    for field, value in values.items():
        low, high = command[field].limits(config)
        if not low <= value <= high:
            raise CompileError(f"{name}.{field} = {value} is outside {low}..{high} on machine '{config.name}'")
    return encode(name, **values)
