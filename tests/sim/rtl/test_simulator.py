"""Harness, memory model and protocol checker, driven by the copier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace_sim.rtl import DdrConfig, RtlSimulator, SimulationError, Waves, spans

from .conftest import copy, library
from .copier import FAULT, SOURCE, START, STATUS, TARGET, UNMAPPED, Fault

Make = Callable[..., RtlSimulator]
DATA = np.random.default_rng(7).integers(0, 256, 4096, dtype=np.uint8)
SLVERR, DECERR = 2, 3


@pytest.mark.parametrize("beats", [1, 2, 17, 256])
def test_copy(simulator: Make, beats: int) -> None:
    sim = simulator(base=0x1_0000, bytes=0x1_0000)
    sim.write_memory(0x1_1000, DATA)
    copy(sim, 0x1_1000, 0x1_3000, beats)
    assert sim.read_memory(0x1_3000, 16 * beats) == DATA[: 16 * beats].tobytes()
    assert not np.any(sim.memory[0x3000 + 16 * beats :])
    assert (sim.read_beats, sim.write_beats) == (beats, beats)


def test_latencies_and_bandwidth(simulator: Make) -> None:
    def cycles(beats: int = 64, **ddr: int) -> int:
        sim = simulator(bytes=0x1_0000, **ddr)
        took = copy(sim, 0x1000, 0x3000, beats)
        sim.close()
        return took

    plain = cycles()
    assert cycles(read_latency=160) - plain == 100
    assert cycles(write_latency=110) - plain == 100
    assert cycles(beats_den=2) - plain == pytest.approx(128, abs=2)
    assert cycles(turnaround=9) - plain == 9
    assert cycles(row_miss=20, row_bytes=512, banks=1) - plain == 4 * 20
    assert cycles(refresh_interval=1000, refresh_cycles=500) == plain
    assert cycles(refresh_interval=100, refresh_cycles=40) > plain + 40


def test_random_stalls_change_time_only(simulator: Make) -> None:
    for seed in range(1, 6):
        sim = simulator(bytes=0x1_0000, stall_per_1024=400, seed=seed)
        sim.write_memory(0x1000, DATA)
        copy(sim, 0x1000, 0x3000, 200)
        assert sim.read_memory(0x3000, 3200) == DATA[:3200].tobytes(), f"seed {seed}"
        sim.close()


@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_errors_are_answered_where_asked_for(simulator: Make, response: int) -> None:
    sim = simulator(bytes=0x1_0000, error_base=0x3010, error_bytes=16, error_response=response)
    sim.write_memory(0x1000, DATA)
    copy(sim, 0x1000, 0x3000, 4)
    assert sim.read_register(STATUS) == response << 2
    assert sim.read_memory(0x3000, 64) == DATA[:16].tobytes() + bytes(16) + DATA[32:64].tobytes()
    sim.run(10)
    copy(sim, 0x3000, 0x5000, 4)
    assert sim.read_register(STATUS) == response


def test_outside_of_memory_is_a_decode_error(simulator: Make) -> None:
    sim = simulator(base=0x1000, bytes=0x1000)
    copy(sim, 0x2000, 0x0, 1)
    assert sim.read_register(STATUS) == DECERR << 2 | DECERR


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.LAST_EARLY, "W: WLAST is not on the last beat"),
        (Fault.UNSTABLE, "AW: changed before ready"),
        (Fault.BURST_TYPE, "AR: burst type is not INCR"),
        (Fault.STROBE, "W: strobe outside the lanes"),
        (Fault.ASSERTION, "assertion failed"),
    ],
)
def test_violations_are_reported(simulator: Make, fault: Fault, message: str) -> None:
    sim = simulator(bytes=0x1_0000, stall_per_1024=600)
    with pytest.raises(SimulationError, match=message):
        sim.write_register(FAULT, fault)
        for _ in range(10):
            copy(sim, 0x1000, 0x3000, 4)
            sim.read_register(STATUS)
            sim.run(3)


def test_bursts_stay_in_their_page(simulator: Make) -> None:
    with pytest.raises(SimulationError, match="AR: burst crosses a 4 KiB boundary"):
        copy(simulator(bytes=0x1_0000), 0x1FF0, 0x3000, 2)


def test_registers(simulator: Make) -> None:
    sim = simulator()
    with pytest.raises(SimulationError, match="read of register 0x014: response 2"):
        sim.read_register(UNMAPPED)
    with pytest.raises(SimulationError, match="write to register 0x014: response 2"):
        sim.write_register(UNMAPPED, 1)


def test_interrupt_limit_and_reset(simulator: Make) -> None:
    sim = simulator(bytes=0x1_0000, read_latency=5000)
    sim.write_register(SOURCE, 0x1000)
    sim.write_register(TARGET, 0x3000)
    sim.write_register(START, 1)
    assert not sim.run_until_interrupt(1000)
    sim.reset()
    assert not sim.run_until_interrupt(10_000)
    copy(sim, 0x1000, 0x3000, 1)


def test_trace(simulator: Make) -> None:
    sim = simulator(bytes=0x1_0000)
    for _ in range(3):
        copy(sim, 0x1000, 0x3000, 8)
        sim.read_register(STATUS)
        sim.run(2)
    found = spans(sim.trace_events())
    assert [(s.engine, s.index) for s in found] == [(0, 0), (0, 1), (0, 2)]
    assert all(s.end > s.begin for s in found)
    assert found[0].end < found[1].begin
    sim.clear_trace()
    assert sim.trace_events().size == 0


def test_two_machines_do_not_share_anything(simulator: Make) -> None:
    one, two = simulator(bytes=0x1_0000), simulator(bytes=0x1_0000)
    one.write_memory(0x1000, DATA)
    copy(one, 0x1000, 0x3000, 4)
    assert two.cycle < one.cycle
    assert not np.any(two.memory)


def test_memory_access_is_checked(simulator: Make) -> None:
    sim = simulator(base=0x1000, bytes=0x1000)
    with pytest.raises(ValueError, match="outside of the memory"):
        sim.read_memory(0x1FFF, 2)
    with pytest.raises(ValueError, match="outside of the memory"):
        sim.write_memory(0xFFF, b"1")


@pytest.mark.parametrize(
    "wrong", [{"beats_den": 0}, {"beats_num": 2}, {"bytes": 0}, {"seed": -1}, {"error_response": 1}, {"banks": 0}]
)
def test_impossible_memories_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        DdrConfig(**wrong)


@pytest.mark.regress
@pytest.mark.parametrize("data_bytes", [4, 8, 64])
def test_widths(data_bytes: int) -> None:
    with RtlSimulator(library(data_bytes)) as sim:
        sim.write_memory(0x1000, DATA)
        copy(sim, 0x1000, 0x3000, 16)
        assert sim.read_memory(0x3000, 16 * data_bytes) == DATA[: 16 * data_bytes].tobytes()


@pytest.mark.regress
def test_waves(tmp_path: Path) -> None:
    with RtlSimulator(library(4, Waves.VCD)) as sim:
        sim.start_waves(tmp_path / "copy.vcd")
        copy(sim, 0x1000, 0x3000, 16)
        sim.stop_waves()
        assert "m_axi_araddr" in (tmp_path / "copy.vcd").read_text()
        with pytest.raises(SimulationError, match="cannot record waves"):
            sim.start_waves(tmp_path / "missing" / "copy.vcd")
