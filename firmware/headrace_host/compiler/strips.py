"""Operands of a dataflow layer that do not fit on chip pass through the scratchpad in strips of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headrace_host.compiler.layout import View, tensor_words
from headrace_host.compiler.operands import Location, Memory, OutOfScratchpad, Sink, Source


@dataclass(frozen=True)
class Input:
    """An input tensor; output rows ``[first, last)`` read its pixels ``reads(first, last)``."""

    location: Location
    reads: Callable[[int, int], tuple[int, int]]

    def widest(self, rows: int, count: int) -> int:
        """Most pixels that ``count`` of ``rows`` output rows read."""
        spans = (self.reads(first, first + count) for first in range(rows - count + 1))
        return max(end - start for start, end in spans)


@dataclass(frozen=True)
class Strip:
    """Output rows ``[first, last)`` with their operands in place: views, and the pixels at which they start there."""

    first: int
    last: int
    inputs: tuple[tuple[View, int], ...]
    output: tuple[View, int]


def in_strips(
    memory: Memory, name: str, inputs: Sequence[Input], output: Location, *, rows: int, row_pixels: int
) -> Iterator[Strip]:
    """Serve all output rows strip by strip: inputs are loaded before, the output is stored after each.

    The loads of a strip go before the work of the one before it, so that they run beside it.

    Raises:
        OutOfScratchpad: when not even strips of one row fit, naming the layer ``name``.
    """
    region = inputs[0].location.region
    near = 0 if region is None else memory.scratchpad.sub_bank(region)
    banks = [near, *(1 - near for _ in inputs)]  # the first input in one sub-bank, everything else in the other

    def fits(count: int) -> bool:
        operands = [(each.location, each.widest(rows, count)) for each in inputs] + [(output, count * row_pixels)]
        requests = [
            (tensor_words(memory.config, pixels, location.channels, location.shift), bank)
            for (location, pixels), bank in zip(operands, banks, strict=True)
            if location.view is None
            for _ in range(2)
        ]
        return memory.scratchpad.holds(requests)

    if not fits(rows):
        memory.free_retired()
    largest = rows
    while largest and not fits(largest):
        largest //= 2
    if not largest:
        raise OutOfScratchpad(name)
    sources = [
        Source(memory, each.location, each.widest(rows, largest), prefer=bank)
        for each, bank in zip(inputs, banks, strict=False)
    ]
    sink = Sink(memory, output, largest * row_pixels, prefer=banks[-1])

    def fetch(first: int) -> tuple[tuple[View, int], ...]:
        span = (first, min(first + largest, rows))
        fetched = (source.fetch(*each.reads(*span)) for source, each in zip(sources, inputs, strict=True))
        return tuple((strip.view, strip.pixel) for strip in fetched)

    fetched = fetch(0)
    for first in range(0, rows, largest):
        here, last = fetched, min(first + largest, rows)
        if last < rows:
            fetched = fetch(last)
        view, at = sink.open(first * row_pixels)
        yield Strip(first, last, here, (view, at))
        sink.close(first * row_pixels, last * row_pixels, view, at)
    memory.release_buffers()
    output.loaded = output.pixels
