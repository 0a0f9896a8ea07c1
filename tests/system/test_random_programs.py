"""Random programs: the generated hardware equals the golden model in every byte of DDR."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headrace.config import machine
from headrace_sim.programs import random_program
from headrace_sim.programs.backends import GoldenBackend, RtlBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.machines import ODD, find
from headrace_sim.programs.rtl_machine import random_timing
from headrace_sim.programs.runner import Runner

Backend = Callable[[str], RtlBackend]


@pytest.mark.parametrize(("name", "count"), [("tiny", 40), ("base", 4)])
def test_programs_equal_golden(name: str, count: int) -> None:
    runner = Runner(find(name))
    for report in runner.run_all(range(count)):
        assert report.passed, report.text()


@pytest.mark.regress
@pytest.mark.parametrize(
    ("name", "count"),
    [("tiny", 1500), ("odd", 600), ("thin", 1500), ("base", 150), ("edge", 20), *((name, 200) for name in ODD)],
)
def test_many_programs_equal_golden(name: str, count: int) -> None:
    runner = Runner(find(name))
    for report in runner.run_all(range(10_000, 10_000 + count)):
        assert report.passed, report.text()


def test_programs_follow_each_other_without_reset(backend: Backend) -> None:
    config = machine("tiny")
    first = random_program(config, 0)
    with backend("tiny").machine(first, random_timing(first)) as rtl:
        for seed in range(8):
            case = random_program(config, seed)
            found = differences(case, GoldenBackend(config).run(case), rtl.run(case))
            assert not found, f"seed {seed}: {found}"


def test_results_do_not_depend_on_timing(backend: Backend) -> None:
    """One program at five memory timings: equal bytes, different cycles."""
    config = machine("tiny")
    case = random_program(config, 77)
    cycles = set()
    for seed in range(5):
        with backend("tiny").machine(case, random_timing(replace(case, seed=seed))) as rtl:
            outcome = rtl.run(case)
            assert not differences(case, GoldenBackend(config).run(case), outcome)
            cycles.add(outcome.cycles)
    assert len(cycles) > 1


def test_ring_wraps_around(backend: Backend) -> None:
    """Programs follow each other in one ring of 128 commands, without reset between them."""
    config = machine("tiny")
    ring, ring_area = 128, 1 << 15
    first = random_program(config, 0)
    with backend("tiny").machine(first, random_timing(first)) as rtl:
        tail = 0
        for seed in range(12):
            case = random_program(config, seed, layers=2)
            contents = case.ddr.copy()
            commands = np.frombuffer(case.image, np.uint8).reshape(-1, 128)
            contents[:ring_area].reshape(-1, 128)[(tail + np.arange(case.commands)) % ring] = commands
            if seed == 0:
                rtl.prepare(replace(case, ring_base=0, ring_log2=ring.bit_length() - 1))
            rtl.set_windows(case)
            rtl.simulator.write_memory(0, contents)
            tail += case.commands
            rtl.write("RING_TAIL", tail)
            outcome = rtl.finish(case)
            expected = GoldenBackend(config).run(case)
            assert outcome.error is None and outcome.end_value == case.end_value, seed
            assert np.array_equal(outcome.ddr[ring_area:], expected.ddr[ring_area:]), seed
        assert tail > ring


def test_high_ddr_addresses(backend: Backend) -> None:
    config = machine("tiny")
    case = random_program(config, 5, ddr_base=0xFE_DCBA_0000)
    assert not differences(case, GoldenBackend(config).run(case), backend("tiny").run(case))


def test_a_wrong_byte_is_found(backend: Backend) -> None:
    """The comparison sees a difference when the hardware is given other weights or inputs."""
    config = machine("tiny")
    case = random_program(config, 1)
    contents = case.ddr.copy()
    inputs = slice(40_000, 200_000)
    contents[inputs] = np.random.default_rng(1).permutation(contents[inputs])
    found = differences(case, GoldenBackend(config).run(case), backend("tiny").run(replace(case, ddr=contents)))
    assert any("bytes differ" in line for line in found)
