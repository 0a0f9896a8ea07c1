"""Perplexity of a text on a machine, beside that of the fp32 reference of the same file.

A text is cut into windows that each start afresh; perplexity is exp of the mean negative log likelihood of every token
after the first of its window (Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition
tasks").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from headrace.config import NpuConfig
from headrace_host.errors import CompileError
from headrace_host.models.language import LanguageModel
from headrace_host.models.language_reference import LanguageReference, negative_log_likelihoods
from headrace_host.transformer.runner import TextRunner
from headrace_host.transformer.text import TextMachine

CHUNK = 64
"""Tokens that the machine takes at once."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Mean negative log likelihoods, a window each, on the machine and of the reference."""

    model: str
    machine: str
    length: int
    measured: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def value(self) -> float:
        """Perplexity on the machine."""
        return float(np.exp(np.mean(self.measured)))

    @property
    def reference_value(self) -> float:
        """Perplexity of the fp32 reference."""
        return float(np.exp(np.mean(self.reference)))

    @property
    def change(self) -> float:
        """How much larger it is on the machine, relative."""
        return self.value / self.reference_value - 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "machine": self.machine,
            "windows": len(self.measured),
            "length": self.length,
            "perplexity": round(self.value, 4),
            "reference_perplexity": round(self.reference_value, 4),
            "change": round(self.change, 5),
            "likelihoods": [round(x, 5) for x in self.measured],
            "reference_likelihoods": [round(x, 5) for x in self.reference],
        }

    def table(self) -> Table:
        """A row a window."""
        title = f"{self.model} on {self.machine}: perplexity, {len(self.measured)} windows of {self.length} tokens"
        table = Table("window", "machine", "fp32", "change", title=title, min_width=len(title))
        for number, (found, expected) in enumerate(zip(self.measured, self.reference, strict=True)):
            change = np.exp(found - expected) - 1
            table.add_row(str(number), f"{np.exp(found):.3f}", f"{np.exp(expected):.3f}", f"{change:+.2%}")
        table.add_section()
        table.add_row("all", f"{self.value:.3f}", f"{self.reference_value:.3f}", f"{self.change:+.2%}")
        return table


def windows_of(tokens: list[int], count: int, length: int) -> list[list[int]]:
    """The first ``count`` windows of ``length`` tokens.

    Raises:
        CompileError: when the text is shorter, or a window is not a multiple of `CHUNK`.
    """
    if length % CHUNK:
        raise CompileError(f"a window of {length} tokens: choose a multiple of {CHUNK}")
    if len(tokens) < count * length:
        raise CompileError(
            f"{count} windows of {length} tokens need {count * length} tokens, the text has {len(tokens)}"
        )
    return [tokens[start : start + length] for start in range(0, count * length, length)]


def measured(
    model: LanguageModel, config: NpuConfig, windows: list[list[int]], *, jobs: int, backend: str = "golden"
) -> Iterator[float]:
    """Mean negative log likelihood of each window on the machine, as they come; ``jobs`` processes share the work."""
    length = len(windows[0])
    if jobs <= 1:
        yield from _likelihoods(_runner(model, config, length, backend), windows)
        return
    with ProcessPoolExecutor(jobs, initializer=_start, initargs=(model, config, length, backend)) as pool:
        yield from pool.map(_in_worker, windows)


def expected(model: LanguageModel, windows: list[list[int]]) -> Iterator[float]:
    """As `measured`, of the fp32 reference."""
    reference = LanguageReference(model)
    for window in windows:
        yield float(negative_log_likelihoods(reference.logits(window), window).mean())


def _runner(model: LanguageModel, config: NpuConfig, length: int, backend: str) -> TextRunner:
    text = TextMachine(model, config, length, tuple(range(model.dimensions.layers)))
    return TextRunner(text, sizes=[CHUNK], backend=backend)


def _likelihoods(runner: TextRunner, windows: Iterable[list[int]]) -> Iterator[float]:
    for window in windows:
        logits = [runner.run(window[start : start + CHUNK], start) for start in range(0, len(window), CHUNK)]
        yield float(negative_log_likelihoods(np.concatenate(logits), window).mean())


_workers_runner: TextRunner | None = None


def _start(model: LanguageModel, config: NpuConfig, length: int, backend: str) -> None:
    global _workers_runner  # a worker process builds its machine once
    _workers_runner = _runner(model, config, length, backend)


def _in_worker(window: list[int]) -> float:
    assert _workers_runner is not None
    return next(_likelihoods(_workers_runner, [window]))
