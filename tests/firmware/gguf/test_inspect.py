"""`headrace inspect`: a table for people, figures as JSON, one line for a file that does not work."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from gguf import GGMLQuantizationType as Kind
from typer.testing import CliRunner

from headrace_host.cli import app


def test_figures(tmp_path: Path, files: ModuleType) -> None:
    path = files.small(tmp_path, "qwen2", kinds={"blk.1.ffn_up.weight": Kind.Q8_0})
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["architecture"] == "qwen2" and found["rotary_pairs"] == "halves" and found["tied"]
    rows = {row["name"]: row for row in found["matrices"]}
    gate, up = rows["blk.1.ffn_gate.weight"], rows["blk.1.ffn_up.weight"]
    assert (gate["stored_type"], gate["machine_form"]) == ("Q4_1", "INT4 groups")
    assert gate["stored_bytes"] == 96 * 64 * 5 // 8
    assert gate["bits_per_weight"] == pytest.approx(4.5 + 19 / 64)
    assert (up["stored_type"], up["machine_form"]) == ("Q8_0", "INT8 rows")
    assert up["bits_per_weight"] == pytest.approx(8 + 16 / 64)
    total = found["total"]
    assert total["machine_bytes"] == sum(row["machine_bytes"] for row in rows.values())
    assert total["weights"] == sum(row["outputs"] * row["inputs"] for row in rows.values())


def test_table(tmp_path: Path, files: ModuleType) -> None:
    path = files.small(tmp_path, kinds={"blk.1.ffn_up.weight": Kind.Q8_0})
    text = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    assert text.count("blk.*.ffn_up.weight") == 2 and text.count("blk.*.ffn_gate.weight") == 1
    assert "small llama: llama, 2 layers of width 64" in text and "tied head" in text


def test_errors(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    for name, text in (("x.gguf", "truncated"), ("y.gguf", "cannot be read")):
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / name)])
        assert result.exit_code == 2 and text in result.stderr and len(result.stderr.splitlines()) == 1
