"""What commands share: the application, consoles, options, and errors as one line and an exit status."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console

from headrace.config import ConfigError
from headrace_host.errors import DeviceError, HostError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")


class Backend(StrEnum):
    """What executes the commands."""

    golden = "golden"
    rtl = "rtl"


MachineOption = Annotated[str, typer.Option("--machine", "-m", help="A machine of `headrace machines`.")]
BackendOption = Annotated[Backend, typer.Option(help="golden: numpy model; rtl: the generated Verilog.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


def fail(error: Exception) -> NoReturn:
    """One line, no traceback. Status 1: the machine went wrong; 2: what the user gave does not work."""
    text = " ".join(str(error).split())
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(1 if isinstance(error, DeviceError) else 2)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors a user can act on into one line and an exit status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (HostError, ConfigError) as error:
            fail(error)

    return run


def read(path: Path) -> bytes:
    """The content of a file the user named.

    Raises:
        HostError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: cannot be read ({error.strerror}); check the path") from error
