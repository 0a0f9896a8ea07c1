"""Compilation: cache, missing tools, errors."""

from pathlib import Path

import pytest

from headrace_sim.rtl import BuildError, Design, ToolMissing, Waves, build, toolchain

BROKEN = Design(verilog="module broken(input clk; endmodule", top="broken", axi_bits=32, engines=0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    return tmp_path


def test_failure_leaves_only_the_log_it_names(cache: Path) -> None:
    with pytest.raises(BuildError, match="syntax error") as caught:
        build(BROKEN)
    log = Path(str(caught.value).rsplit("log: ", 1)[1])
    assert "syntax error" in log.read_text()
    assert log.parent == cache / "rtl" and [path for path in log.parent.iterdir() if path.is_dir()] == []


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "g++").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"'make' is missing: .*apt install make"):
        build(BROKEN)


def test_fst_without_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_sim.rtl.builder.has_headers", lambda *names: False)
    with pytest.raises(ToolMissing, match="liblz4-dev"):
        build(BROKEN, waves=Waves.FST)


def test_headers() -> None:
    assert toolchain.has_headers("cstdint")
    assert not toolchain.has_headers("cstdint", "no_such_header.h")
