"""Smaller programs that still fail."""

from collections.abc import Callable

from .case import Case
from .generator import Plan

__all__ = ["shrink"]


def shrink(plan: Plan, fails: Callable[[Case], bool]) -> Case:
    """Leave out layers, then groups of commands, while `fails` stays true; the smallest failing case found.

    What a dropped command would have written holds zeros, so `fails` must start every case on cleared memories.
    """
    keep = plan.units()
    case = plan.case()
    for layers in (True, False):
        progress = True
        while progress:
            progress = False
            for group in list(dict.fromkeys(unit[0] if layers else unit for unit in keep)):
                fewer = [unit for unit in keep if (unit[0] if layers else unit) != group]
                if not fewer:
                    continue
                candidate = plan.case(fewer)
                if fails(candidate):
                    keep, case, progress = fewer, candidate, True
    return case
