"""The top at bus level, in cocotb, with random back-pressure on every AXI channel."""

from pathlib import Path

import pytest

from headrace_sim.bench.build import build, run
from headrace_sim.programs.machines import find
from headrace_sim.rtl.machine import design

SEED = 20


@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("odd", 6),
        pytest.param("tiny", 100, marks=pytest.mark.regress),
        pytest.param("odd", 40, marks=pytest.mark.regress),
        pytest.param("thin", 40, marks=pytest.mark.regress),
        pytest.param("one", 40, marks=pytest.mark.regress),
        pytest.param("pair", 20, marks=pytest.mark.regress),
        pytest.param("scaled", 20, marks=pytest.mark.regress),
    ],
)
def test_programs_over_axi(name: str, programs: int, tmp_path: Path) -> None:
    top = design(find(name))
    environment = {"HEADRACE_MACHINE": name, "HEADRACE_PROGRAMS": str(programs)}
    results = run(build(top), top, "headrace_sim.bench.programs", results=tmp_path, seed=SEED, environment=environment)
    assert results == (2, 0), (tmp_path / "log").read_text()[-8000:]
