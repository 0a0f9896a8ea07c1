"""The operator instruction set: one description, from which decoder, assembler, constants and manual are made."""

from headrace.config import Precision

from .commands import BY_NAME, BY_OPCODE, COMMANDS, Dest, DType, ScalarOp
from .dataflow import (
    CONTEXT_BITS,
    CONTEXT_FIELDS,
    CONTEXT_WORDS,
    DataflowOp,
    MemIndex,
    Reduce,
    Source,
    encode_context,
)
from .errors import Cause
from .fields import COMMAND_BITS, COMMAND_BYTES, Command, Engine, Field

__all__ = [
    "BY_NAME",
    "BY_OPCODE",
    "COMMANDS",
    "COMMAND_BITS",
    "COMMAND_BYTES",
    "CONTEXT_BITS",
    "CONTEXT_FIELDS",
    "CONTEXT_WORDS",
    "Cause",
    "Command",
    "DType",
    "DataflowOp",
    "Dest",
    "Engine",
    "Field",
    "MemIndex",
    "Precision",
    "Reduce",
    "ScalarOp",
    "Source",
    "encode_context",
]
