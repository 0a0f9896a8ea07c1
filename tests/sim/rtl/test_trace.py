"""Spans and timelines."""

import json
from pathlib import Path

import numpy as np

from headrace_sim.rtl.trace import EVENT_DTYPE, Span, chrome_trace, spans, write_chrome_trace

BEGINS = [(10, 0, 0), (12, 1, 3), (15, 2, 3), (50, 3, 3)]  # cycle, index, engine
ENDS = [(20, 0, 0), (30, 1, 3), (44, 2, 3)]
EVENTS = np.array(sorted([(*b, 0, 0) for b in BEGINS] + [(*e, 1, 0) for e in ENDS]), EVENT_DTYPE)


def test_commands_queued_in_an_engine_end_in_order() -> None:
    assert spans(EVENTS) == [Span(0, 0, 10, 20), Span(3, 1, 12, 30), Span(3, 2, 15, 44)]


def test_tracks_do_not_overlap(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_chrome_trace(path, spans(EVENTS), labels={1: "conv1"})
    read = json.loads(path.read_text())
    assert read == chrome_trace(spans(EVENTS), labels={1: "conv1"})
    drawn = [(e["tid"], e["ts"], e["dur"], e["name"]) for e in read["traceEvents"] if e["ph"] == "X"]
    assert drawn == [(0, 10, 10, "command 0"), (3, 12, 18, "conv1"), (3, 30, 14, "command 2")]
    assert [e["args"]["name"] for e in read["traceEvents"] if e["ph"] == "M"][3] == "MAC"
