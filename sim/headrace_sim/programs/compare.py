"""Comparison of what two simulators made of one case."""

import numpy as np

from .case import Case
from .outcome import Outcome

__all__ = ["differences"]

_SHOWN = 4


def differences(case: Case, expected: Outcome, actual: Outcome) -> list[str]:
    """Sentences on everything that differs: errors, END value, every byte of DDR; empty when equal.

    Also a sentence if `expected` itself is not what a valid program does.
    """
    out = []
    if expected.error is not None:
        out.append(f"the reference stopped: {expected.error}")
    if actual.error != expected.error:
        out.append(f"error {actual.error}, expected {expected.error}")
    if actual.end_value != expected.end_value:
        out.append(f"END value {actual.end_value}, expected {expected.end_value}")
    stray = np.flatnonzero((expected.ddr != case.ddr) & ~case.written())
    if stray.size:
        out.append(f"the reference wrote outside of the outputs, first at {case.ddr_base + int(stray[0]):#x}")
    wrong = np.flatnonzero(actual.ddr != expected.ddr)
    if wrong.size:
        out.append(f"{wrong.size} bytes differ")
        out += _by_output(case, expected, actual)
        outside = wrong[~case.written()[wrong]]
        out += [f"  {_byte(case, expected, actual, at)} is no output" for at in outside[:_SHOWN]]
    return out


def _by_output(case: Case, expected: Outcome, actual: Outcome) -> list[str]:
    """The first differing byte of each store command."""
    out: dict[int, str] = {}
    for output in case.outputs:
        first = output.first - case.ddr_base
        part = slice(first, output.end - case.ddr_base)
        wrong = np.flatnonzero(actual.ddr[part] != expected.ddr[part])
        if wrong.size and output.command not in out:
            byte = _byte(case, expected, actual, first + int(wrong[0]))
            layer = case.description[output.layer]
            out[output.command] = f"  {byte}, stored by command {output.command} of layer {output.layer} ({layer})"
    return list(out.values())


def _byte(case: Case, expected: Outcome, actual: Outcome, at: int) -> str:
    return f"{case.ddr_base + at:#x}: {actual.ddr[at]:#04x}, expected {expected.ddr[at]:#04x}"
