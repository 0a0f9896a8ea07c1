"""What the engines did when: events from the trace port, spans, and a timeline for Perfetto."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["ENGINE_NAMES", "EVENT_DTYPE", "Span", "chrome_trace", "spans", "write_chrome_trace"]

ENGINE_NAMES = ("LOAD", "WEIGHT", "STORE", "MAC", "EPILOGUE", "VECTOR")

EVENT_DTYPE = np.dtype(
    [("cycle", "<u8"), ("index", "<u2"), ("engine", "u1"), ("is_end", "u1"), ("reserved", "<u4")], align=True
)
"""`TraceEvent` of harness.cpp: at `cycle` a command was given to an engine, or was completed by it."""


@dataclass(frozen=True)
class Span:
    """A command in an engine: given to it at cycle `begin`, completed at cycle `end`."""

    engine: int
    index: int
    begin: int
    end: int


def spans(events: npt.NDArray[np.void]) -> list[Span]:
    """Pairs begins and ends of `EVENT_DTYPE`, in order of ends. Commands that did not complete are left out."""
    begun: dict[int, deque[tuple[int, int]]] = {}
    out = []
    for cycle, index, engine, is_end, _ in events.tolist():
        waiting = begun.setdefault(engine, deque())
        if not is_end:
            waiting.append((index, cycle))
        elif waiting:
            first, begin = waiting.popleft()
            out.append(Span(engine, first, begin, cycle))
    return out


def chrome_trace(
    completed: Sequence[Span], *, labels: Mapping[int, str] | None = None, names: Sequence[str] = ENGINE_NAMES
) -> dict[str, object]:
    """The spans in the Chrome trace format, one track an engine; a microsecond stands for a cycle.

    An engine may take a command before the previous one is completed. It is drawn from the completion of that one; the
    cycle at which it was given is among its arguments. `labels` names commands by index.
    """
    labels = labels or {}
    free: dict[int, int] = {}
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}}
        for tid, name in enumerate(names)
    ]
    for span in completed:
        begin = max(span.begin, free.get(span.engine, 0))
        free[span.engine] = span.end
        events.append(
            {
                "ph": "X",
                "name": labels.get(span.index, f"command {span.index}"),
                "cat": names[span.engine],
                "pid": 0,
                "tid": span.engine,
                "ts": begin,
                "dur": span.end - begin,
                "args": {"command": span.index, "given": span.begin, "completed": span.end},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def write_chrome_trace(path: str | Path, completed: Sequence[Span], *, labels: Mapping[int, str] | None = None) -> None:
    """Writes a timeline that https://ui.perfetto.dev and chrome://tracing open."""
    Path(path).write_text(json.dumps(chrome_trace(completed, labels=labels)))
