"""The C header and driver compile without warnings, and encode what the assembler encodes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.isa.assembler import patch
from headrace.isa.commands import BY_NAME

C_SOURCES = Path(__file__).parents[3] / "firmware" / "c"


def _raw(name: str, **fields: int) -> str:
    """A command of which only the named fields are set."""
    command = BY_NAME[name]
    word = command.opcode
    for field, value in fields.items():
        f = command[field]
        word |= (value & ((1 << f.width) - 1)) << f.offset
    return word.to_bytes(128, "little").hex()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_driver_compiles_and_works(tmp_path: Path) -> None:
    program = tmp_path / "driver_test"
    sources = [Path(__file__).with_name("driver_test.c"), C_SOURCES / "headrace.c"]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{C_SOURCES}"]
    subprocess.run(["gcc", *flags, *sources, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    patch1 = patch("LOAD", "s1", register=5, shift=7 - BY_NAME["LOAD"]["s1"].offset % 32)
    assert printed == [
        _raw("MAC", wait=1 << 3 | 1 << 31, pad_top=-3, m_count=0xABCDEF),
        _raw("LOAD", patch1=patch1, ddr=0x1234567890, s1=-1, dest=2),
    ]
