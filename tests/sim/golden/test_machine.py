"""The ring in order: tokens, patches, scalars, malformed commands, windows of the fetch."""

from typing import Any

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import BY_NAME, Cause, Engine, ScalarOp
from headrace.isa.assembler import Program, encode, patch
from headrace_sim.golden import GoldenMachine, SequenceError, Window

from .loops import DATA, run, run_ok

FILL: dict[str, Any] = {"n0": 4, "pix_bytes": 4, "fill": 1}


def tiny() -> GoldenMachine:
    return GoldenMachine(machine("tiny"), ddr_bytes=1 << 18)


def test_scalars_and_patches() -> None:
    m = tiny()
    m.write_ddr(DATA, np.arange(256, dtype=np.uint8))
    m.scalars[1] = 0xFFFFFFFF
    run_ok(
        m,
        ("SCALAR", {"dst": 2, "imm": 5}),
        ("SCALAR", {"dst": 3, "src": 2, "op": ScalarOp.ADD, "imm": -2}),
        (
            "LOAD",
            {
                "ddr": DATA + 4,
                "n0": 4,
                "pix_bytes": 4,
                "patch0": patch("LOAD", "ddr", register=2, shift=3),
                "patch1": patch("LOAD", "base", register=3),
            },
        ),
        ("LOAD", {"ddr": DATA + 1, "n0": 4, "pix_bytes": 4, "patch0": patch("LOAD", "ddr", register=1)}),
    )
    assert m.scalars[:4].tolist() == [0, 0xFFFFFFFF, 5, 3]
    assert m.scratchpad.data[0, 3].tolist() == [44, 45, 46, 47]
    assert m.scratchpad.data[0, 0].tolist() == [0, 1, 2, 3]


def test_limits_are_checked_after_patching_and_reserved_bits_before() -> None:
    m = tiny()
    m.scalars[0] = 1023
    base = BY_NAME["LOAD"]["base"]
    patched = {**FILL, "base": 1, "patch0": patch("LOAD", "base", register=0)}
    error = run(m, ("LOAD", patched)).error
    assert error is not None
    assert (error.cause, error.address, error.engine) == (Cause.MALFORMED, base.offset, Engine.LOAD)
    m.scalars[0] = 0xFFFFFFFF
    assert run(m, ("LOAD", patched)).error is None


@pytest.mark.parametrize(
    ("change", "address", "engine"),
    [
        ({0: 0}, 0, Engine.CONTROL),
        ({0: 99}, 0, Engine.CONTROL),
        ({1: 1}, 8, Engine.LOAD),
        ({127: 0x80}, 1023, Engine.LOAD),
        ({12: 1}, 96, Engine.LOAD),
    ],
)
def test_malformed(change: dict[int, int], address: int, engine: Engine) -> None:
    m = tiny()
    command = bytearray(encode("LOAD", **FILL))
    for byte, value in change.items():
        command[byte] = value
    m.write_ddr(0, encode("SCALAR") + bytes(command))
    error = m.run(0, 2).error
    assert error is not None
    assert (error.cause, error.index, error.engine, error.address) == (Cause.MALFORMED, 1, engine, address)


def test_tokens() -> None:
    m = tiny()
    signal, wait = ("LOAD", {**FILL, "signal": [3, 5]}), ("STORE", {"ddr": DATA, "n0": 1, "wait": [3, 5]})
    run_ok(m, signal, wait, signal, signal, wait, wait)
    assert m.tokens == [0] * 32
    with pytest.raises(SequenceError, match="command 2: waits for token 3"):
        run(m, signal, wait, wait)
    error = run(m, *[signal] * 256).error
    assert error is not None
    assert (error.cause, error.index, error.address, error.engine) == (Cause.TOKEN, 255, 3, Engine.LOAD)


def test_ring_wraps_and_end_values() -> None:
    m = tiny()
    program = Program()
    program.append("SCALAR", dst=0, src=0, op=ScalarOp.ADD, imm=1)
    program.append("END", value=0xFFFFFFFF)
    m.write_ddr(0x2000, program.image())
    result = m.run(0x2000, 6, ring_size=1)
    assert (result.error, result.end_value, result.commands) == (None, 0xFFFFFFFF, 6)
    assert m.scalars[0] == 3


def test_fetching_is_checked_against_the_windows() -> None:
    m = tiny()
    m.windows = [Window(0, 1), Window(1, 2, read=False)]
    m.write_ddr(0x1000 - 128, encode("SCALAR") + encode("END"))
    error = m.run(0x1000 - 128, 2).error
    assert error is not None
    assert (error.cause, error.index, error.engine, error.address) == (Cause.WINDOW, 1, Engine.CONTROL, 0x1000)


def test_host_access_at_a_base() -> None:
    m = GoldenMachine(machine("tiny"), ddr_base=0x8000_0000, ddr_bytes=1 << 16)
    m.write_ddr(0x8000_0010, np.array([[1, -2]], np.int16))
    assert m.read_ddr(0x8000_0010, 5) == b"\x01\0\xfe\xff\0"
    m.write_ddr(0x8000_0000, encode("END", value=3))
    assert m.run(0x8000_0000, 1).end_value == 3
    with pytest.raises(ValueError, match="no memory at"):
        m.read_ddr(0x10, 1)
