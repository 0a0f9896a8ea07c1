"""Amaranth layouts of commands and contexts, from the same description as everything else."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from .dataflow import CONTEXT_BITS, CONTEXT_FIELDS
from .fields import COMMAND_BITS, Command, Field

__all__ = ["command_layout", "context_layout"]


def _layout(fields: tuple[Field, ...], bits: int) -> data.FlexibleLayout:
    return data.FlexibleLayout(
        bits, {f.name: data.Field(signed(f.width) if f.signed else unsigned(f.width), f.offset) for f in fields}
    )


def command_layout(command: Command) -> data.FlexibleLayout:
    """The command's 1,024 bits with its fields by name."""
    return _layout(command.fields, COMMAND_BITS)


def context_layout() -> data.FlexibleLayout:
    """A column context's 128 bits with its fields by name."""
    return _layout(CONTEXT_FIELDS, CONTEXT_BITS)
