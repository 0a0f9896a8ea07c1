"""Encoding, decoding and text of commands."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.isa import BY_NAME, COMMAND_BYTES, COMMANDS, Command, Dest
from headrace.isa.assembler import Program, decode, default, encode, field_range, patch


@st.composite
def any_command(draw: st.DrawFn) -> tuple[Command, dict[str, int]]:
    command = draw(st.sampled_from(COMMANDS))
    values = {f.name: draw(st.integers(*field_range(f))) for f in command.fields}
    return command, {**values, "opcode": command.opcode}


@settings(max_examples=60, deadline=None)
@given(st.lists(any_command(), max_size=4))
def test_every_value_survives_image_and_text(commands: list[tuple[Command, dict[str, int]]]) -> None:
    program = Program()
    for command, values in commands:
        assert decode(encode(command.name, **values)) == (command, values)
        program.append(command.name, **values)
    image = program.image()
    assert len(image) == COMMAND_BYTES * len(commands)
    assert list(Program.from_image(image)) == commands
    assert Program.from_text(program.text()).image() == image


def test_fields_lie_where_the_description_says() -> None:
    f = BY_NAME["LOAD"]["ddr"]
    word = int.from_bytes(encode("LOAD", ddr=0x12_3456_7890, wait=[0, 31], n0=5), "little")
    assert word & 0xFF == 1
    assert word >> f.offset & (1 << 40) - 1 == 0x12_3456_7890
    assert word >> 32 & 0xFFFFFFFF == 0x8000_0001
    _, values = decode(encode("MAC", pad_top=-3))
    assert values["pad_top"] == -3 and values["kh"] == 1 and values["in_base"] == 0


def test_text_with_names_tokens_patches_and_continuation() -> None:
    text = """
    # loads
LOAD ddr=0x1000 n0=64 pix_bytes=16 dest=COLUMN
    wait=[1, 3]  signal=[2]   # continued
MAC patch0=s3<<4@in_p0 patch1=s1@m_count
""".replace("    # loads", "# loads")
    program = Program.from_text(text)
    assert len(program) == 2
    command, values = program[0]
    assert (
        command.name == "LOAD" and values["wait"] == 0b1010 and values["signal"] == 4 and values["dest"] == Dest.COLUMN
    )
    offset = BY_NAME["MAC"]["in_p0"].offset
    assert program[1][1]["patch0"] == 1 | (4 + offset % 32) << 1 | 3 << 6 | (offset // 32) << 10
    assert "wait=[1, 3]" in program.text() and "dest=COLUMN" in program.text() and "s1@m_count" in program.text()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("JUMP", {}, "JUMP"),
        ("MAC", {"kernel": 1}, "MAC.*kernel"),
        ("MAC", {"kh": 256}, "MAC.kh"),
        ("MAC", {"pad_top": -129}, "MAC.pad_top"),
        ("LOAD", {"ddr": 1 << 40}, "LOAD.ddr"),
        ("LOAD", {"wait": [32]}, "LOAD.wait"),
        ("LOAD", {"wait": [1, 1]}, "LOAD.wait"),
        ("LOAD", {"n1": [1]}, "LOAD.n1"),
        ("LOAD", {"opcode": 2}, "LOAD.opcode"),
    ],
)
def test_encode_refuses_and_names_the_field(name: str, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(name, **fields)


@pytest.mark.parametrize("raw", [bytes(127), bytes(128), bytes([255]) + bytes(127), bytes([8]) + bytes(126) + b"\x80"])
def test_decode_refuses(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"bytes|opcode|reserved"):
        decode(raw)


@pytest.mark.parametrize(
    "text", ["END value", "END value=1 value=2", "END colour=1", "HALT", "END value=x", "END patch0=s16@value"]
)
def test_text_errors_name_the_line(text: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Program.from_text("END\n" + text)


def test_patch_of_header_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MAC\.wait"):
        patch("MAC", "wait", register=0)


def test_defaults_are_legal_where_zero_is_not() -> None:
    command = BY_NAME["LOAD"]
    assert default(command, command["n3"]) == 1 and default(command, command["s3"]) == 0
