"""Checks of command images."""

import re

import pytest

from headrace.config import machine
from headrace.isa.assembler import Program
from headrace.isa.check import Problem, check, problems

CONFIG = machine("tiny")  # R = C = 2, K = 2, T = 4, ring of 64 entries

GOOD = """
LOAD n0=16 pix_bytes=4 signal=[0]
WEIGHT entries=18 tag=7
MAC kh=3 kw=3 cw=1 n_tiles=2 m_tiles=2 t_count=4 t_last=2 m_count=11 replay=1 in_w=5 tag=7 wait=[0] signal=[1]
EPILOGUE n_tiles=2 m_tiles=2 t_count=4 t_last=2 m_count=11 wait=[1] signal=[2]
STORE n0=16 pix_bytes=4 wait=[2]
END value=1
"""


def test_a_valid_image_has_no_problems() -> None:
    check(Program.from_text(GOOD), CONFIG)


@pytest.mark.parametrize(
    ("old", "new", "index", "message"),
    [
        ("wait=[0] ", "wait=[3] ", 2, "waits for token 3"),
        ("wait=[2]", "", 6, "token 2 is left"),
        ("STORE n0=16 pix_bytes=4 wait=[2]", "VECTOR wait=[2] signal=[1]\nVECTOR wait=[1]", 4, "produced by MAC"),
        ("wait=[1] signal=[2]", "wait=[1, 0] signal=[2]", 3, "consumed by MAC"),
        ("t_last=2 m_count=11 wait", "t_last=3 m_count=11 wait", 3, "EPILOGUE.t_last"),
        ("STORE n0=16 pix_bytes=4", "MAC", 4, "more than there are"),
        ("END value=1", "EPILOGUE", 5, "EPILOGUE without a MAC"),
        ("t_last=2 m_count=11 replay", "t_last=1 m_count=11 replay", 2, "do not cover"),
        ("entries=18", "entries=17", 2, "1 more than there are"),
        ("entries=18", "entries=19", 6, "1 weight entries are left"),
        ("entries=18 tag=7", "entries=18 tag=6", 2, "MAC.tag is 7"),
        ("entries=18", "ddr=2 entries=18", 1, "aligned"),
        ("entries=18", "entries=18 repeat=0", 1, "WEIGHT.repeat"),
        ("kh=3 kw=3 cw=1", "kh=5 kw=13 cw=1", 2, "needs 65 weight entries"),
        ("t_count=4", "t_count=5", 2, "MAC.t_count"),
        ("replay=1", "replay=1 ilv=2", 2, "multiple of 2"),
        ("replay=1", "replay=1 fold=1 dil_x=2", 2, "fold needs"),
        ("replay=1", "replay=1 scales=1", 2, "MAC.scales: 1 is not possible"),
        ("replay=1", "replay=1 mode=3", 2, "MAC.mode: 3 is not in"),
        ("wait=[1] signal=[2]", "wait=[1] signal=[2] depthwise=1", 3, "EPILOGUE.depthwise is 1, the MAC's 0"),
        ("n0=16 pix_bytes=4 signal", "dest=COLUMN n0=18 pix_bytes=4 signal", 0, "LOAD.n0"),
        ("END", "VECTOR n0=65 wraps=1\nEND", 5, "gasket"),
        ("END", "VECTOR n0=5 ctx=7 wraps=1\nEND", 5, "context 8"),
        ("END", "SCALAR patch0=0xC01\nEND", 5, "patch0 changes"),
    ],
)
def test_a_broken_rule_is_reported(old: str, new: str, index: int, message: str) -> None:
    assert old in GOOD
    found = problems(Program.from_text(GOOD.replace(old, new, 1)), CONFIG)
    assert any(p.index == index and re.search(message, p.message) for p in found), [str(p) for p in found]
    with pytest.raises(ValueError, match=message):
        check(Program.from_text(GOOD.replace(old, new, 1)), CONFIG)


def test_tokens_overflow() -> None:
    program = Program()
    for _ in range(256):
        program.append("LOAD", n0=4, pix_bytes=4, signal=[0])
    assert [p.index for p in problems(program, CONFIG)] == [255, 256]


def test_held_entries_serve_the_next_mac() -> None:
    shape = "n_tiles=1 m_tiles=1 t_count=1 t_last=1 m_count=2"
    use = f"MAC cw=3 {shape}\nEPILOGUE {shape}\n"
    held = use.replace("cw=3", "cw=3 hold=1")
    assert problems(Program.from_text("WEIGHT entries=3\n" + held + held + use), CONFIG) == []
    assert problems(Program.from_text("WEIGHT entries=3\n" + held + use + use), CONFIG) != []


def test_weights_must_not_fill_their_queue_before_the_mac_that_makes_room() -> None:
    """A tile of 64 entries fills the ring: with 7 WEIGHT commands ahead of the MACs, fetch never gets to those."""
    tile = "MAC kh=8 kw=8 m_count=1\nEPILOGUE m_count=1\n"
    ahead = Program.from_text("WEIGHT entries=64\n" * 7 + tile * 7 + "END")
    assert [p.index for p in problems(ahead, CONFIG)] == [6]
    check(Program.from_text(("WEIGHT entries=64\n" + tile) * 7 + "END"), CONFIG)


@pytest.mark.parametrize(
    ("mac", "entries"),
    [
        ("kh=3 kw=3 cw=5", 45),
        ("kh=3 kw=3 cw=5 mode=A8W4", 23),
        ("kh=3 kw=3 cw=5 mode=A4W4", 45),
        ("kh=3 kw=3 fold=1", 9),
        ("kh=3 kw=3 fold=1 mode=A8W4", 5),
        ("kh=2 kw=2 depthwise=1", 2),
        ("kh=2 cw=2 scales=1 mode=A8W4", 2),
    ],
)
def test_entries_of_a_tile(mac: str, entries: int) -> None:
    """A tile takes exactly this number of entries."""
    epilogue = "EPILOGUE depthwise=1\n" if "depthwise" in mac else "EPILOGUE\n"
    for there, right in ((entries, True), (entries - 1, False), (entries + 1, False)):
        program = Program.from_text(f"WEIGHT entries={there}\nMAC {mac}\n{epilogue}")
        assert (problems(program, CONFIG) == []) == right, there


def test_entries_of_a_folded_tile_on_a_wide_machine() -> None:
    program = Program.from_text("WEIGHT entries=12\nMAC kh=6 kw=7 fold=1\nEPILOGUE\n")
    assert problems(program, machine("base")) == []


def test_patched_fields_are_left_to_the_machine() -> None:
    check(Program.from_text("LOAD n0=16 pix_bytes=4 n1=0 patch0=s1@n1\nVECTOR n0=9999 wraps=1 patch0=s2@n0\n"), CONFIG)


@pytest.mark.parametrize("patch", ["", " patch0=s1@scales", " patch1=s1@in_p0"])
def test_a_patched_field_of_a_rule_is_left_to_the_machine(patch: str) -> None:
    program = Program.from_text(f"WEIGHT entries=1\nMAC scales=1 fold=1{patch}\nEPILOGUE\n")
    assert (problems(program, CONFIG) == []) == ("scales" in patch)


DYNAMIC = """
SCALAR dst=4 op=ADD src=3 imm=1
WEIGHT entries=1 tag=7 patch0=s4@entries
MAC cw=1 tag=7 patch0=s3@cw
EPILOGUE
"""


def test_the_ring_is_counted_when_scalars_are_known() -> None:
    """A tile of cw words takes as many entries on this machine; both counts come from scalar registers."""
    program = Program.from_text(DYNAMIC)
    check(program, CONFIG)
    assert problems(program, CONFIG, {3: 4}) == [Problem(4, "1 weight entries are left in the ring")]
    check(Program.from_text(DYNAMIC.replace("imm=1", "imm=0")), CONFIG, {3: 4})
