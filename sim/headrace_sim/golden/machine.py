"""The golden machine: memory, scalars, tokens, and the execution of a command ring in order.

Use::

    m = GoldenMachine(machine("base"), ddr_bytes=1 << 24)      # DDR at address 0, one window open over all of it
    m.write_ddr(0x1000, image)                                 # commands, 128 bytes each; weights; input
    result = m.run(0x1000, count=len(image) // 128)
    if result.error is None:
        out = m.read_ddr(out_address, out_bytes)               # result.end_value is the value of the last END

`m.windows` (list of `Window`, in pages) and `m.scalars` (numpy uint32) may be set by the host before `run`; tests may
look into `m.scratchpad`, `m.dataflow`, `m.ring`, `m.kc` and `m.accumulators`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import COMMAND_BYTES, Cause, Command, Dest, Engine, ScalarOp

from . import decode, dma, passes
from .dataflow import DataflowArray
from .errors import Fault, RunError, SequenceError
from .fields import Fields
from .mac import mac
from .memory import Ddr, Window, windows_over
from .ring import WeightRing
from .scratchpad import Scratchpad
from .tiles import Accumulators

__all__ = ["GoldenMachine", "RunResult"]

_TOKEN_LIMIT = 255
_RING_LOG2_MAX = 15


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run: the error, or None; the value of the last END, or None; commands completed."""

    error: RunError | None
    end_value: int | None
    commands: int


class GoldenMachine:
    """Executes command images with the machine's exact results; time does not exist.

    DDR is `ddr_bytes` bytes at byte address `ddr_base`, zero at first, as are scratchpad, column memories, contexts and
    the table of group offset shifts (`kc`).
    After an error the memories a command writes are undefined where that command would have written.
    """

    def __init__(self, config: NpuConfig, *, ddr_base: int = 0, ddr_bytes: int = 1 << 24) -> None:
        self.config = config
        self.memory = Ddr(base=ddr_base, size=ddr_bytes)
        self.windows = list(windows_over(ddr_base, ddr_bytes))
        self.scalars = np.zeros(config.scalars, np.uint32)
        self.scratchpad = Scratchpad(config)
        self.dataflow = DataflowArray(config)
        self.ring = WeightRing()
        self.kc = np.zeros((config.kc_words, -(-config.cols // 8)), np.uint32)
        self.accumulators = Accumulators()
        self.tokens = [0] * config.tokens

    @property
    def ddr(self) -> np.ndarray:
        """The bytes of DDR (uint8), the first at `ddr_base`."""
        return self.memory.data

    @property
    def windows(self) -> list[Window]:
        """Address windows, at most `config.windows` of them."""
        return self.memory.windows

    @windows.setter
    def windows(self, windows: list[Window]) -> None:
        self.memory.windows = [Window(*w) for w in windows]
        self.memory.check_windows(self.config.windows)

    def write_ddr(self, address: int, data: bytes | bytearray | np.ndarray) -> None:
        """Host write of bytes (an array's bytes in C order)."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8) if isinstance(data, np.ndarray) else data
        values = np.frombuffer(raw, np.uint8)
        self.memory.data[self.memory.span(address, len(values))] = values

    def read_ddr(self, address: int, size: int) -> bytes:
        """Host read of `size` bytes."""
        return self.memory.data[self.memory.span(address, size)].tobytes()

    def reset(self) -> None:
        """What CONTROL.reset does: tokens, ring and accumulators are empty; memories and scalars keep their values."""
        self.tokens = [0] * self.config.tokens
        self.ring.clear()
        self.accumulators.clear()

    def run(self, ring_base: int, count: int, *, ring_size: int = _RING_LOG2_MAX) -> RunResult:
        """Reset, then execute `count` commands of the ring of 2^ring_size commands at DDR address `ring_base`.

        Raises:
            SequenceError: when the image has no sequential meaning (see there), naming the command.
            ValueError: when a window is open where there is no memory.
        """
        self.memory.check_windows(self.config.windows)
        self.reset()
        end_value = None
        for index in range(count):
            engine = Engine.CONTROL
            try:
                address = ring_base + (index & ((1 << ring_size) - 1)) * COMMAND_BYTES
                self.memory.require(address, COMMAND_BYTES)
                raw = self.memory.data[self.memory.span(address, COMMAND_BYTES)].tobytes()
                command = decode.command_of(raw)
                engine = command.engine
                ended = self._execute(command, raw)
            except Fault as fault:
                return RunResult(RunError(fault.cause, index & 0xFFFF, engine, fault.address), end_value, index)
            except SequenceError as error:
                raise SequenceError(f"command {index}: {error}") from error
            end_value = end_value if ended is None else ended
        return RunResult(None, end_value, count)

    def _execute(self, command: Command, raw: bytes) -> int | None:
        """One command, tokens included; the value if it is an END."""
        header = decode.header_of(raw)
        self._wait(header.wait)
        if header.stray >= 0:
            raise Fault(Cause.MALFORMED, header.stray)
        fields = decode.checked_fields(decode.apply_patches(raw, header.patches, self.scalars), self.config)
        self._dispatch(command.name, fields)
        self._signal(header.signal)
        return fields["value"] if command.name == "END" else None

    def _wait(self, mask: int) -> None:
        for token in _bits(mask):
            if token >= len(self.tokens) or not self.tokens[token]:
                raise SequenceError(f"waits for token {token}, which no earlier command left")
            self.tokens[token] -= 1

    def _signal(self, mask: int) -> None:
        for token in _bits(mask):
            if token >= len(self.tokens):
                raise SequenceError(f"signals token {token}, which this machine does not have")
            if self.tokens[token] == _TOKEN_LIMIT:
                raise Fault(Cause.TOKEN, token)
            self.tokens[token] += 1

    def _dispatch(self, name: str, f: Fields) -> None:
        match name:
            case "LOAD":
                tables = {Dest.COLUMN: self.dataflow.memory, Dest.CONTEXT: self.dataflow.contexts, Dest.KC: self.kc}
                dma.load(f, self.memory, self.scratchpad, tables)
            case "STORE":
                dma.store(f, self.memory, self.scratchpad)
            case "WEIGHT":
                dma.weight(f, self.memory, self.ring, self.config)
            case "MAC":
                mac(f, self.scratchpad, self.ring, self.kc, self.accumulators, self.config)
            case "EPILOGUE":
                passes.epilogue(f, self.scratchpad, self.accumulators, self.dataflow, self.config)
            case "VECTOR":
                passes.vector(f, self.scratchpad, self.dataflow, self.config)
            case "SCALAR":
                source = int(self.scalars[f["src"]]) if f["op"] == ScalarOp.ADD else 0
                self.scalars[f["dst"]] = (source + f["imm"]) & 0xFFFFFFFF


def _bits(mask: int) -> Iterator[int]:
    """Numbers of the bits that are set, in order."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1
