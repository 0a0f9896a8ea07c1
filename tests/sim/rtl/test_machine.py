"""A machine's Verilog is kept, unless the sources changed under the process that emitted it."""

from pathlib import Path

import pytest

from headrace.config import machine as named
from headrace_sim.rtl import machine


def test_only_what_the_sources_say_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted = []

    def emit(config: object) -> dict[str, object]:
        emitted.append(config)
        return {"verilog": f"module {len(emitted)}", "cells": []}

    monkeypatch.setattr(machine, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(machine, "_emit", emit)
    current = machine._SOURCES
    monkeypatch.setattr(machine, "_source_digest", lambda: "changed since")
    assert [machine.design(named("tiny")).verilog for _ in range(2)] == ["module 1", "module 2"]
    monkeypatch.setattr(machine, "_source_digest", lambda: current)
    assert [machine.design(named("tiny")).verilog for _ in range(2)] == ["module 3", "module 3"]
    assert machine.design(named("odd")).verilog == "module 4"
