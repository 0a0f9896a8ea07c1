"""VECTOR commands: streams, sink and loops of one pass of the dataflow array over the scratchpad."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config import NpuConfig
from headrace.isa import DType
from headrace_host.compiler.constants import Installed
from headrace_host.compiler.layout import View
from headrace_host.compiler.operands import Memory
from headrace_host.compiler.stream import Access

MAX_COUNT = (1 << 15) - 1
"""Largest loop count and stride of a VECTOR command used here (strides are signed 16 bits)."""


@dataclass(frozen=True)
class Stream:
    """Where a stream of a pass lies: ``pixels`` pixels from ``pixel`` on, ``width`` bytes from ``channel`` on."""

    view: View
    pixel: int
    pixels: int
    channel: int
    width: int
    kind: DType = DType.I8

    def fields(self, prefix: str) -> dict[str, int]:
        """The command's view fields."""
        return {**self.view.fields(prefix, pixel=self.pixel, channel=self.channel), f"{prefix}_type": int(self.kind)}

    def access(self, config: NpuConfig, *, write: bool) -> Access:
        """What the pass touches."""
        pixels, channels = (self.pixel, self.pixel + self.pixels), (self.channel, self.channel + self.width)
        return self.view.access(config, write=write, pixels=pixels, channels=channels)


@dataclass(frozen=True)
class Codes:
    """What an integer sink adds and clamps to; for unsigned sinks ``high`` = -1 means 255."""

    zero_point: int = 0
    low: int = -128
    high: int = 127


INT8 = Codes()
"""Results are int8 codes already."""


def emit_pass(
    memory: Memory,
    installed: Installed,
    loops: dict[str, int],
    x: Stream,
    out: Stream,
    *,
    y: Stream | None = None,
    codes: Codes = INT8,
    channels: int = 0,
    reads: tuple[Access, ...] = (),
) -> None:
    """Emit a VECTOR command with ``loops`` (fields n, m and steps); ``channels`` elements along its idx_loop.

    ``reads`` is what it touches beside its streams and program.
    """
    config = memory.config
    accesses = [*installed.accesses, *reads, x.access(config, write=False), out.access(config, write=True)]
    fields = {**x.fields("x"), **out.fields("o")}
    if y is not None:
        accesses.append(y.access(config, write=False))
        fields |= {"y_enable": 1, **y.fields("y")}
    memory.recorder.emit(
        "VECTOR",
        memory.label,
        accesses,
        **fields,
        **loops,
        channels=channels,
        ctx=installed.ctx,
        wraps=installed.wraps,
        zp=codes.zero_point,
        lo=codes.low,
        hi=codes.high,
    )
