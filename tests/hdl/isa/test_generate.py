"""Generated files are those of the current description, and hardware needs no numpy."""

import subprocess
import sys
from pathlib import Path

from headrace.isa.generate import OUTPUTS, render, stale


def test_generated_files_are_current() -> None:
    assert stale() == [], "run python -m headrace.isa.generate"


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    for name, template in OUTPUTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(render(template))
    assert stale(tmp_path) == []
    (tmp_path / "docs/isa.md").write_text("old")
    (tmp_path / "docs/registers.md").unlink()
    assert stale(tmp_path) == ["docs/isa.md", "docs/registers.md"]


def test_hardware_imports_without_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import headrace.control.control, headrace.isa.generate, headrace.isa.check, headrace.isa.assembler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
