"""Comparison of outcomes: every kind of difference is reported, and where it comes from."""

from dataclasses import replace

import numpy as np

from headrace.config import machine
from headrace_sim.programs import Case, random_program
from headrace_sim.programs.backends import GoldenBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.outcome import Outcome
from headrace_sim.programs.runner import Runner


def _case() -> tuple[Case, Outcome]:
    case = random_program(machine("odd"), 3)
    return case, GoldenBackend(case.config).run(case)


def _with_byte(outcome: Outcome, at: int) -> Outcome:
    memory = outcome.ddr.copy()
    memory[at] ^= 1
    return replace(outcome, ddr=memory)


def test_equal_outcomes() -> None:
    case, outcome = _case()
    assert differences(case, outcome, outcome) == []


def test_a_wrong_output_names_its_command_and_layer() -> None:
    case, outcome = _case()
    last = case.outputs[-1]
    found = differences(case, outcome, _with_byte(outcome, last.end - 1 - case.ddr_base))
    assert found[0] == "1 bytes differ"
    assert f"{last.end - 1:#x}" in found[1] and f"command {last.command}" in found[1]


def test_a_write_outside_of_the_outputs() -> None:
    case, outcome = _case()
    outside = int(np.flatnonzero(~case.written())[1000])
    assert any("is no output" in line for line in differences(case, outcome, _with_byte(outcome, outside)))


def test_errors_and_end_value() -> None:
    case, outcome = _case()
    stopped = replace(outcome, error="BUS", end_value=None)
    assert len(differences(case, outcome, stopped)) == 2


def test_report_says_how_to_repeat() -> None:
    report = Runner(machine("odd"), tested="golden", layers=3).run(8)
    assert report.passed
    expected = "--machine odd --seed 8 --layers 3 --reference golden --tested golden"
    assert report.repeat.endswith(expected)
    assert report.repeat in report.text() and "END" in report.text()
