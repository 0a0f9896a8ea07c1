"""Compiles emitted Verilog, the memory model and the harness into a shared library, once for each content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .toolchain import ToolMissing, Verilator, has_headers, require_tools

__all__ = ["BuildError", "Design", "Waves", "best_wave_format", "build", "cache_root", "class_settings"]

_SOURCES = Path(__file__).parent / "csrc"
_LIBRARY = "libheadrace.so"
_LOG = "build.log"


class BuildError(RuntimeError):
    """The simulation did not compile; the message ends with the path of the log."""


class Waves(Enum):
    """What a simulation can record, which is decided when it is compiled. Recording makes it ten times slower."""

    NONE = 0
    FST = 1
    VCD = 2


@dataclass(frozen=True, kw_only=True)
class Design:
    """Verilog to simulate.

    Its top has `clk`, `rst`, an AXI4-Lite slave `s_axil_*` (12-bit addresses, 32-bit data), an AXI4 master `m_axi_*` of
    `axi_bits`, `irq` and, unless `engines` is 0, the trace port. Modules in `classes`, of which there are many
    instances, become C++ classes instead of being copied into the top, with one copy of their code for all instances:
    that compiles several times faster, and the code that runs in a cycle is small enough for the processor's caches.
    """

    verilog: str
    top: str
    axi_bits: int
    engines: int = 6
    classes: tuple[str, ...] = ()


def cache_root() -> Path:
    """Directory of compiled simulations: `HEADRACE_CACHE`, or `~/.cache/headrace`. It may be deleted at any time."""
    return Path(os.environ.get("HEADRACE_CACHE") or Path.home() / ".cache" / "headrace")


def best_wave_format() -> Waves:
    """FST if its compression headers are installed, else VCD, which is some twenty times larger."""
    return Waves.FST if has_headers("lz4.h", "zlib.h") else Waves.VCD


def build(design: Design, *, waves: Waves = Waves.NONE, console: Console | None = None) -> Path:
    """The compiled library of `design`: from the cache, or compiled now, which takes a minute for a large machine.

    Safe to call from several processes at once: one compiles, the others wait. `console` shows the progress if it is a
    terminal.

    Raises:
        ToolMissing: when a program or, for FST, a header is not installed.
        BuildError: when compilation fails.
    """
    require_tools()
    verilator = Verilator()
    if waves is Waves.FST and not has_headers("lz4.h", "zlib.h"):
        raise ToolMissing(
            "FST waves need the headers of lz4 and zlib (Debian, Ubuntu: apt install liblz4-dev zlib1g-dev); or use VCD"
        )
    arguments = _arguments(design, waves)
    home = cache_root() / "rtl"
    home.mkdir(parents=True, exist_ok=True)
    target = home / _digest(design, arguments, verilator.version)
    if not (target / _LIBRARY).exists():
        with _lock(target.with_suffix(".lock")):
            if not (target / _LIBRARY).exists():
                with _progress(console, design.top):
                    _compile(design, arguments, verilator, target)
    return target / _LIBRARY


def _arguments(design: Design, waves: Waves) -> list[str]:
    defines = {
        "HEADRACE_AXI_BITS": design.axi_bits,
        "HEADRACE_ENGINES": design.engines,
        "HEADRACE_WAVES": waves.value,
        "VL_USER_FINISH": 1,
        "VL_USER_STOP": 1,
        "VL_USER_FATAL": 1,
    }
    trace = {Waves.NONE: [], Waves.FST: ["--trace-fst"], Waves.VCD: ["--trace-vcd"]}[waves]
    return [
        *("--cc", "--exe", "--build", "-j", str(os.cpu_count() or 1), "-O3", "--assert"),
        # These optimisations name variables across instances, after which their code can no longer be shared.
        *("-fno-dfg", "-fno-table"),
        *("--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-Wno-lint"),
        *("--prefix", "Vtop", "--top-module", design.top, "-Mdir", "obj", "-o", _LIBRARY),
        # Code that runs once is half of all code: it is not optimised.
        *("-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O2"),
        *("-CFLAGS", " ".join(["-fPIC", "-std=c++20", *(f"-D{name}={value}" for name, value in defines.items())])),
        *("-LDFLAGS", "-shared -Wl,--no-undefined", *trace, "classes.vlt", "design.v", "harness.cpp"),
    ]


def class_settings(design: Design) -> str:
    """Verilator's settings that make `design.classes` classes whose instances share their code.

    A port that Verilator replaces by the signal outside of it makes the code of every instance different; ports that
    the public may read are not replaced.
    """
    lines = ["`verilator_config"]
    for name in design.classes:
        header = re.search(rf"^module {re.escape(name)}\((.*?)\);", design.verilog, re.MULTILINE | re.DOTALL)
        if header is None:
            raise ValueError(f"the Verilog has no module '{name}'")
        lines.append(f'no_inline -module "{name}"')
        ports = (port.strip() for port in header[1].split(","))
        lines.extend(f'public_flat_rd -module "{name}" -var "{port}"' for port in ports if port not in ("clk", "rst"))
    return "\n".join([*lines, ""])


def _digest(design: Design, arguments: list[str], version: str) -> str:
    digest = hashlib.sha256()
    sources = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
    texts = [design.verilog, design.top, class_settings(design), *arguments, version, os.uname().machine]
    for part in [*sources, *(text.encode() for text in texts)]:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:24]


def _compile(design: Design, arguments: list[str], verilator: Verilator, target: Path) -> None:
    """Put the library, its sources and the log into `target`, all or nothing; a failure leaves its log beside it."""
    log = target.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix=target.name + ".", dir=target.parent) as directory:
        work = Path(directory) / target.name
        work.mkdir()
        (work / "design.v").write_text(design.verilog)
        (work / "classes.vlt").write_text(class_settings(design))
        for source in _SOURCES.iterdir():
            shutil.copy(source, work)
        command, environment = verilator.command(arguments), verilator.environment()
        with log.open("w") as file:
            done = subprocess.run(command, cwd=work, env=environment, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            tail = "\n".join(log.read_text().splitlines()[-8:])
            raise BuildError(f"the simulation of '{design.top}' did not compile:\n{tail}\nlog: {log}")
        (work / "obj" / _LIBRARY).rename(work / _LIBRARY)
        shutil.rmtree(work / "obj")
        log.rename(work / _LOG)
        work.rename(target)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(console: Console | None, name: str) -> Iterator[None]:
    if console is None or not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(f"compiling the simulation of {name} (once; about a minute)")
        yield
