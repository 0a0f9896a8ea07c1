"""Every way to fail: the machine stops, says why, touches nothing else, and runs again without reset."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import BY_NAME, Cause, Engine
from headrace.isa.assembler import encode
from headrace.registers import State
from headrace_sim.golden import RunError
from headrace_sim.programs import Case, random_program
from headrace_sim.programs.backends import GoldenBackend, RtlBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.outcome import Outcome
from headrace_sim.programs.rtl_machine import ABORT, RESET, RtlMachine, random_timing
from headrace_sim.rtl import DdrConfig

from .faults import changed, commands, from_commands, with_bit, with_raw

CONFIG = machine("tiny")
DDR = DdrConfig(bytes=1 << 19, read_latency=40, stall_per_1024=100)
OUTSIDE = 0x12_3456_7000


@pytest.fixture(scope="module")
def rtl(backend: Callable[[str], RtlBackend]) -> Iterator[RtlMachine]:
    """One machine for all tests, never reset by its pin: each failure is followed by the next test."""
    with backend("tiny").machine(random_program(CONFIG, 0), DDR) as rtl:
        yield rtl


@pytest.fixture(autouse=True)
def runs_again(rtl: RtlMachine) -> Iterator[None]:
    """After every test a good program is exact."""
    yield
    case = random_program(CONFIG, 12)
    found = differences(case, GoldenBackend(CONFIG).run(case), rtl.run(case))
    assert not found, found


def _program(kind: str, seed: int = 0) -> Case:
    """A random program with at least one such command."""
    while True:
        case = random_program(CONFIG, seed)
        if commands(case, kind):
            return case
        seed += 1


def _fails(rtl: RtlMachine, case: Case) -> RunError:
    """Run a case that must fail: halted, and no byte outside of its outputs changed."""
    outcome = rtl.run(case)
    _check_stopped(rtl, case, outcome)
    return rtl.error()


def _check_stopped(rtl: RtlMachine, case: Case, outcome: Outcome) -> None:
    assert outcome.error is not None
    assert rtl.read("STATUS") == State.HALTED
    assert not ((outcome.ddr != case.ddr) & ~case.written()).any()


def _as_golden(rtl: RtlMachine, case: Case) -> RunError:
    """Run a case that fails in the same way in the golden model."""
    error = _fails(rtl, case)
    assert str(error) == GoldenBackend(CONFIG).run(case).error
    return error


@pytest.mark.parametrize("name", ["LOAD", "WEIGHT", "STORE", "MAC", "EPILOGUE", "VECTOR"])
def test_reserved_bit(rtl: RtlMachine, name: str) -> None:
    case = _program(name)
    index = commands(case, name)[-1][0]
    mask = BY_NAME[name].defined_mask
    bit = next(b for b in range(1023, 0, -1) if not mask >> b & 1)
    error = _as_golden(rtl, with_bit(case, index, bit))
    assert (error.cause, error.index, error.address) == (Cause.MALFORMED, index, bit)


def test_unknown_opcode(rtl: RtlMachine) -> None:
    case = _program("STORE")
    index = commands(case, "STORE")[0][0]
    error = _fails(rtl, with_raw(case, index, bytes([200]) + bytes(127)))
    assert (error.cause, error.index, error.address) == (Cause.MALFORMED, index, 0)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("LOAD", "n0", 0),
        ("MAC", "mode", 3),
        ("STORE", "base", CONFIG.bank_words),
        ("MAC", "t_count", CONFIG.accs + 1),
        ("EPILOGUE", "ctx", CONFIG.contexts),
        ("VECTOR", "x_type", 6),
        ("EPILOGUE", "out_type", 7),
        ("WEIGHT", "entries", 0),
    ],
)
def test_field_out_of_range(rtl: RtlMachine, name: str, field: str, value: int) -> None:
    case = _program(name)
    index = commands(case, name)[0][0]
    error = _as_golden(rtl, changed(case, index, **{field: value}))
    assert (error.cause, error.index) == (Cause.MALFORMED, index)
    assert error.address == BY_NAME[name][field].offset


@pytest.mark.parametrize("name", ["LOAD", "WEIGHT", "STORE"])
def test_access_outside_of_the_windows(rtl: RtlMachine, name: str) -> None:
    case = _program(name)
    index = next(i for i, f in commands(case, name) if not f.get("fill"))
    error = _fails(rtl, changed(case, index, ddr=OUTSIDE))
    assert (error.cause, error.index, error.engine) == (Cause.WINDOW, index, Engine[name])
    assert OUTSIDE - CONFIG.axi_bytes < error.address < OUTSIDE + 4096


def test_write_through_a_window_for_reading(rtl: RtlMachine) -> None:
    case = _program("STORE")
    first = min(commands(case, "STORE"))[0]
    case = replace(case, windows=tuple(replace(w, write=False) for w in case.windows))
    error = _fails(rtl, case)
    assert (error.cause, error.engine) == (Cause.WINDOW, Engine.STORE)
    assert error.index == first


def test_commands_outside_of_the_windows(rtl: RtlMachine) -> None:
    case = replace(_program("LOAD"), ring_base=OUTSIDE)
    rtl.prepare(case)
    rtl.write("RING_TAIL", case.commands)
    outcome = rtl.finish(case)
    _check_stopped(rtl, case, outcome)
    error = rtl.error()
    assert (error.cause, error.engine, error.address) == (Cause.WINDOW, Engine.CONTROL, OUTSIDE)


def _alone(name: str) -> tuple[Case, int, dict[str, int]]:
    """A program with a command `name` whose address no STORE writes before it, as those of weights may be."""
    for seed in itertools.count(3):
        case = random_program(CONFIG, seed)
        stored = {f["ddr"] for _, f in commands(case, "STORE")} if name != "STORE" else set()
        for index, fields in commands(case, name):
            if not fields.get("fill") and fields["ddr"] not in stored:
                return case, index, fields
    raise AssertionError


@pytest.mark.parametrize("response", [2, 3])
@pytest.mark.parametrize("name", ["LOAD", "WEIGHT", "STORE"])
def test_bus_error(backend: Callable[[str], RtlBackend], name: str, response: int) -> None:
    """The first beat of the only command that touches the range is refused by the memory."""
    case, index, fields = _alone(name)
    bad = replace(DDR, error_base=fields["ddr"], error_bytes=1, error_response=response)
    with backend("tiny").machine(case, bad) as rtl:
        outcome = rtl.run(case)
        _check_stopped(rtl, case, outcome)
        error = rtl.error()
        assert (error.cause, error.engine, error.index) == (Cause.BUS, Engine[name], index)
        assert fields["ddr"] - 4096 < error.address <= fields["ddr"]


def test_bus_errors_anywhere(backend: Callable[[str], RtlBackend]) -> None:
    """Programs whose memory refuses some addresses stop or never go there; a program elsewhere runs afterwards."""
    rng = np.random.default_rng(5)
    good = random_program(CONFIG, 12)
    stopped = 0
    for seed in range(12):
        case = random_program(CONFIG, seed, ddr_base=1 << 19)
        addresses = [f["ddr"] for name in ("LOAD", "WEIGHT", "STORE") for _, f in commands(case, name)]
        first = int(rng.choice([a for a in addresses if a])) + int(rng.integers(100))
        timing = random_timing(replace(case, seed=seed))
        timing = replace(timing, base=0, bytes=1 << 20, error_base=first, error_bytes=int(rng.integers(1, 9000)))
        with backend("tiny").machine(case, timing) as rtl:
            outcome = rtl.run(case)
            if outcome.error is None:
                assert not differences(case, GoldenBackend(CONFIG).run(case), outcome), seed
            else:
                stopped += 1
                _check_stopped(rtl, case, outcome)
                assert rtl.error().cause == Cause.BUS
            assert not differences(good, GoldenBackend(CONFIG).run(good), rtl.run(good)), seed
    assert stopped > 3


def test_scratchpad_address_out_of_range(rtl: RtlMachine) -> None:
    case = _program("LOAD")
    index = next(i for i, f in commands(case, "LOAD") if f["fill"])
    error = _as_golden(rtl, changed(case, index, base=CONFIG.bank_words - 1, n0=4000, p0=0))
    assert (error.cause, error.index) == (Cause.RANGE, index)


def test_weights_of_another_layer(rtl: RtlMachine) -> None:
    case = _program("MAC")
    index, fields = commands(case, "MAC")[0]
    error = _as_golden(rtl, changed(case, index, tag=fields["tag"] ^ 0x55))
    assert (error.cause, error.index, error.address) == (Cause.RING_TAG, index, fields["tag"])


def test_epilogue_of_another_shape(rtl: RtlMachine) -> None:
    case = _program("EPILOGUE")
    index, fields = commands(case, "EPILOGUE")[0]
    other = fields["t_last"] % CONFIG.accs + 1
    error = _fails(rtl, changed(case, index, t_last=other, t_count=other))
    assert (error.cause, error.index) == (Cause.TILE, index)


def test_weights_not_aligned(rtl: RtlMachine) -> None:
    case = _program("WEIGHT")
    index, fields = commands(case, "WEIGHT")[0]
    error = _as_golden(rtl, changed(case, index, ddr=fields["ddr"] + 1))
    assert (error.cause, error.index, error.address) == (Cause.ALIGN, index, fields["ddr"] + 1)


def test_accumulator_overflow(rtl: RtlMachine) -> None:
    """36,855 entries of four products of -128 by -128."""
    entries = 3 * 3 * 4095
    shape = {"n_tiles": 1, "m_tiles": 1, "m_count": 1, "t_count": 1, "t_last": 1}
    mac = {"in_h": 1, "in_w": 1, "out_w": 1, "kh": 3, "kw": 3, "cw": 4095, "pad_top": 1, "pad_left": 1, "tag": 9}
    image = [
        encode("LOAD", fill=1, fill_value=0x80, n0=CONFIG.word_bytes, pix_bytes=CONFIG.word_bytes, signal=[0]),
        encode("WEIGHT", ddr=0x40000, entries=1, repeat=entries // 2, tag=9),
        encode("WEIGHT", ddr=0x40000, entries=1, repeat=entries - entries // 2, tag=9),
        encode("MAC", **shape, **mac, pad_value=0x80, wait=[0]),
        encode("EPILOGUE", **shape, out_base=8, out_type=1),
        encode("END"),
    ]
    error = _as_golden(rtl, from_commands(CONFIG, image, data=b"\x80" * 64))
    assert (error.cause, error.index, error.engine) == (Cause.OVERFLOW, 3, Engine.MAC)


def test_token_overflow(rtl: RtlMachine) -> None:
    load = encode("LOAD", fill=1, n0=1, signal=[7])
    error = _as_golden(rtl, from_commands(CONFIG, [load] * 260 + [encode("END")]))
    assert (error.cause, error.index, error.address) == (Cause.TOKEN, 255, 7)


def test_watchdog(rtl: RtlMachine) -> None:
    """A token that never comes."""
    case = from_commands(CONFIG, [encode("LOAD", fill=1, n0=1, wait=[3]), encode("END")])
    rtl.prepare(case, watchdog=3000)
    rtl.write("RING_TAIL", case.commands)
    outcome = rtl.finish(case)
    assert rtl.error().cause == Cause.WATCHDOG
    assert outcome.cycles is not None and 3000 <= outcome.cycles < 3500


@pytest.mark.parametrize("action", [ABORT, RESET])
def test_stop_at_any_time(rtl: RtlMachine, action: int) -> None:
    rng = np.random.default_rng(action)
    for seed in range(15):
        case = random_program(CONFIG, seed)
        rtl.prepare(case)
        rtl.write("RING_TAIL", case.commands)
        rtl.simulator.run(int(rng.integers(1, 1500)))
        if rtl.read("STATUS") != State.RUN:
            continue
        rtl.write("CONTROL", action)
        if action == ABORT:
            outcome = rtl.finish(case)
            _check_stopped(rtl, case, outcome)
            assert rtl.error().cause == Cause.ABORT
        case = random_program(CONFIG, 100 + seed)
        assert not differences(case, GoldenBackend(CONFIG).run(case), rtl.run(case)), seed
