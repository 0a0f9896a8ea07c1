"""Compiled copiers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.verilog import emit
from headrace_sim.rtl import DdrConfig, Design, RtlSimulator, Waves, build

from .copier import SOURCE, START, TARGET, Copier


def library(data_bytes: int = 16, waves: Waves = Waves.NONE) -> Path:
    """A copier, from the cache after the first time."""
    verilog = emit(Copier(data_bytes=data_bytes), "copier")
    return build(Design(verilog=verilog, top="copier", axi_bits=8 * data_bytes, engines=1), waves=waves)


@pytest.fixture(scope="session")
def copier_library() -> Path:
    return library()


@pytest.fixture
def simulator(copier_library: Path) -> Iterator[Callable[..., RtlSimulator]]:
    """Makes simulators of a copier with 16-byte beats; arguments are those of `DdrConfig`."""
    made = []

    def make(**ddr: int) -> RtlSimulator:
        made.append(RtlSimulator(copier_library, ddr=DdrConfig(**ddr)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def copy(sim: RtlSimulator, source: int, target: int, beats: int, limit: int = 100_000) -> int:
    """Copy a burst; cycles it took."""
    sim.write_register(SOURCE, source)
    sim.write_register(TARGET, target)
    begin = sim.cycle
    sim.write_register(START, beats)
    assert sim.run_until_interrupt(limit)
    return sim.cycle - begin
