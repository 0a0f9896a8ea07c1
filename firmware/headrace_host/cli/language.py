"""Commands about language models: inspect, perplexity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from headrace.config import machine
from headrace_host.cli.common import Backend, BackendOption, JsonOption, MachineOption, app, err, guarded, out, read
from headrace_host.errors import HostError
from headrace_host.files import write_json
from headrace_host.inspection import Inspection
from headrace_host.models.fetch import fetch_smollm2
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language import LanguageModel
from headrace_host.transformer.perplexity import Perplexity, expected, measured, windows_of

LanguageArgument = Annotated[str, typer.Argument(help="A .gguf file, or 'smollm2' (fetched at first use).")]


def load_language(model: str) -> LanguageModel:
    """The model by file or name."""
    return load_gguf(fetch_smollm2() if model == "smollm2" else Path(model))


@app.command()
@guarded
def inspect(
    model: LanguageArgument,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Show what a language model consists of, in its file and on the machine.

    Example: headrace inspect smollm2
    """
    with err.status("Converting weights"):
        found = Inspection.of(load_language(model))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    out.print(found.table())
    out.print(found.summary(), highlight=False)


@app.command()
@guarded
def perplexity(
    model: LanguageArgument,
    text: Annotated[Path, typer.Argument(help="Prose, UTF-8.")],
    machine_name: MachineOption = "base",
    backend: BackendOption = Backend.golden,
    windows: Annotated[int, typer.Option(min=1, help="Windows, each of which starts afresh.")] = 12,
    length: Annotated[int, typer.Option(min=64, help="Tokens of a window, a multiple of 64.")] = 384,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the work (golden).")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Compare the perplexity of a text on a machine with that of the same file's weights in fp32.

    Example: headrace perplexity smollm2 news.txt --windows 12 --length 384 --jobs 2
    """
    config, loaded = machine(machine_name), load_language(model)
    try:
        prose = read(text).decode()
    except UnicodeDecodeError as error:
        raise HostError(f"{text}: is not UTF-8 text (byte {error.start})") from error
    cut = windows_of(loaded.tokenizer.encode(prose), windows, length)
    with Progress(console=err, transient=True) as progress:
        bars = [progress.add_task(name, total=len(cut)) for name in ("fp32 reference", f"machine {config.name}")]
        references = list(progress.track(expected(loaded, cut), task_id=bars[0]))
        found = list(progress.track(measured(loaded, config, cut, jobs=jobs, backend=backend.value), task_id=bars[1]))
    result = Perplexity(
        model=loaded.name, machine=config.name, length=length, measured=tuple(found), reference=tuple(references)
    )
    out.print(result.table())
    if json_file is not None:
        write_json(json_file, result.to_dict())
