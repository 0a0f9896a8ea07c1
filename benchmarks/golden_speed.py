"""How long the golden machine takes for a token of SmolLM2-135M: `python benchmarks/golden_speed.py`.

The whole model, embedding to logits, on machine `base`; the fastest of some steps after the first, in processor time.
"""

import json
import time
from typing import Annotated

import typer

from headrace.config import machine
from headrace_host.models.fetch import fetch_smollm2
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.transformer.runner import TextRunner
from headrace_host.transformer.text import TextMachine


def main(
    steps: Annotated[int, typer.Option(min=2, help="Decode steps.")] = 6,
    context: Annotated[int, typer.Option(help="Tokens that the caches hold, a multiple of 64.")] = 384,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time decode steps of SmolLM2-135M on the golden machine."""
    model = load_gguf(fetch_smollm2())
    text = TextMachine(model, machine("base"), context, tuple(range(model.dimensions.layers)))
    runner = TextRunner(text, sizes=[1])
    seconds = []
    for position, token in enumerate(model.tokenizer.encode("The water that turns the wheel")[:steps]):
        begin = time.process_time()
        runner.run([token], position)
        seconds.append(time.process_time() - begin)
    commands = runner.image(1).models[0].count
    if as_json:
        print(json.dumps({"commands": commands, "first_step": seconds[0], "step": min(seconds[1:])}))
        return
    print(f"{commands:,} commands a step; first step {seconds[0]:.2f} s, the fastest other {min(seconds[1:]):.2f} s")


if __name__ == "__main__":
    typer.run(main)
