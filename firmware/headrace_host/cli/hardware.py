"""Commands about the machine itself: machines, verilog, asm, disasm, kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from headrace.config import MACHINES, machine
from headrace_host.cli.common import JsonOption, MachineOption, app, guarded, out, read
from headrace_host.compiler.network import compile_graph
from headrace_host.errors import HostError
from headrace_host.files import write_bytes, write_json
from headrace_host.kernels.explain import load_kernel, lowered, parse_shape, passes_json, passes_table
from headrace_host.models.tflite_import import load_tflite


@app.command()
@guarded
def machines(as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False) -> None:
    """List the machines that can be generated."""
    if as_json:
        described = [
            config.to_dict() | {"macs_per_cycle": config.macs_per_cycle, "warnings": config.warnings()}
            for config in MACHINES.values()
        ]
        typer.echo(json.dumps({"machines": described}, indent=2))
        return
    table = Table()
    for column in ("machine", "MACs a cycle", "R x C x K", "T", "S x L", "AXI bits", "scratchpad", "weight ring"):
        table.add_column(column)
    for c in MACHINES.values():
        table.add_row(
            c.name, str(c.macs_per_cycle), f"{c.rows} x {c.cols} x {c.lanes}", str(c.accs),
            f"{c.columns} x {c.vector_lanes}", str(c.axi_bits), f"{c.spad_bytes} B", f"{c.ring_bytes} B",
        )  # fmt: skip
    out.print(table)


@app.command()
@guarded
def kernel(
    source: Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="Python file with a @kernel; its name if many.")],
    machine_name: MachineOption = "base",
    shape: Annotated[str, typer.Option(help="Rows, pixels of a row and channels of the image.")] = "64,64,1",
    explain: Annotated[bool, typer.Option("--explain", help="Show what every column does.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Show the passes and beats that an operator written as a Python function costs.

    Example: headrace kernel examples/sobel.py --explain
    """
    lowering = lowered(load_kernel(source), machine(machine_name), parse_shape(shape))
    if explain:
        out.print(passes_table(lowering))
    found = passes_json(lowering)
    out.print(
        f"{found['kernel']} on {machine_name}: {len(lowering.passes)} passes, {found['beats']:,} beats for {shape}",
        highlight=False,
    )
    if json_file is not None:
        write_json(json_file, found)


@app.command()
@guarded
def verilog(
    machine_name: MachineOption = "base",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; standard output without it.")] = None,
) -> None:
    """Write the machine as Verilog."""
    from headrace.npu import Npu
    from headrace.verilog import emit

    config = machine(machine_name)
    for warning in config.warnings():
        typer.echo(f"warning: {config.name}: {warning}", err=True)
    text = emit(Npu(config=config), "headrace")
    if output is None:
        typer.echo(text)
        return
    write_bytes(output, text.encode())
    typer.echo(f"wrote {output} ({len(text.splitlines()):,} lines)", err=True)


@app.command()
@guarded
def asm(
    source: Annotated[Path, typer.Argument(help="Assembly text.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Command image to write.")],
) -> None:
    """Assemble commands into an image of 128 bytes each."""
    from headrace.isa.assembler import Program

    try:
        image = Program.from_text(read(source).decode()).image()
    except ValueError as error:
        raise HostError(f"{source}: {error}") from error
    write_bytes(output, image)


@app.command()
@guarded
def disasm(
    source: Annotated[Path, typer.Argument(help="A command image, or a .tflite network to compile.")],
    machine_name: MachineOption = "base",
) -> None:
    """Print a command image, or what a network compiles to, as assembly text."""
    from headrace.isa.assembler import Program

    if source.suffix == ".tflite":
        model = compile_graph(load_tflite(source), machine(machine_name))
        image = model.ring
    else:
        image = read(source)
    try:
        typer.echo(Program.from_image(image).text(), nl=False)
    except ValueError as error:
        raise HostError(f"{source}: {error}; give a command image of 128 bytes a command") from error
