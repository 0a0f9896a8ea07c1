"""What the options of commands do shows in DDR: a machine that gets one wrong is found, and the program reduced."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headrace.config import NpuConfig, Precision
from headrace.isa import CONTEXT_FIELDS, CONTEXT_WORDS, Dest, DType
from headrace.isa.assembler import Program
from headrace_sim.programs import Case, plan_program, random_program
from headrace_sim.programs.backends import GoldenBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.machines import find
from headrace_sim.programs.shrink import shrink

Change = Callable[[str, dict[str, int]], dict[str, int]]
SEEDS = 200  # rare ones need many; the first that shows it ends the search
ACROSS = next(f.offset for f in CONTEXT_FIELDS if f.name == "across")


def _flip(name: str, field: str) -> Change:
    return lambda command, fields: {field: 1 - fields[field]} if command == name else {}


def _offset_flags(command: str, fields: dict[str, int]) -> dict[str, int]:
    """Scales of 4-bit weights left out."""
    applies = command == "MAC" and fields["scales"] and fields["mode"] != Precision.A8W8
    return {"scales": 0} if applies else {}


def _unit_shifts(command: str, fields: dict[str, int]) -> dict[str, int]:
    """Scales of INT8 weights left out."""
    applies = command == "MAC" and fields["scales"] and fields["mode"] == Precision.A8W8
    return {"scales": 0} if applies else {}


def _other_byte(command: str, fields: dict[str, int]) -> dict[str, int]:
    """Activation shifts taken from another byte of the word."""
    applies = command == "VECTOR" and fields["o_type"] == DType.KA
    return {"x_c0": fields["x_c0"] ^ 1} if applies else {}


def _sink(name: str, prefix: str, dtype: DType, instead: DType) -> Change:
    def change(command: str, fields: dict[str, int]) -> dict[str, int]:
        return {f"{prefix}type": instead} if command == name and fields[f"{prefix}type"] == dtype else {}

    return change


CHANGES: dict[str, Change] = {
    "act_unsigned": _flip("MAC", "act_unsigned"),
    "weight_unsigned": _flip("MAC", "weight_unsigned"),
    "group scales": _offset_flags,
    "unit shifts": _unit_shifts,
    "activation shifts": _other_byte,
    "unsigned source": _sink("VECTOR", "x_", DType.U8, DType.I8),
    "BF16 source": _sink("VECTOR", "x_", DType.BF16, DType.I16),
    "unsigned sink": _sink("EPILOGUE", "out_", DType.U8, DType.I8),
    "BF16 sink": _sink("EPILOGUE", "out_", DType.BF16, DType.I16),
}


def _changed(case: Case, change: Change) -> Case:
    """The case with every command changed to which the change applies."""
    commands = Program()
    for command, fields in Program.from_image(case.image):
        commands.append(command.name, **(fields | change(command.name, fields)))
    contents = case.ddr.copy()
    first = case.ring_base - case.ddr_base
    contents[first : first + len(case.image)] = np.frombuffer(commands.image(), np.uint8)
    return replace(case, ddr=contents)


def _differs(config: NpuConfig, case: Case, other: Case) -> bool:
    """Whether DDR outside of what was changed differs, both programs running to their ends."""
    if np.array_equal(case.ddr, other.ddr):
        return False
    one, two = GoldenBackend(config).run(case), GoldenBackend(config).run(other)
    written = case.written()
    return one.error is None and two.error is None and not np.array_equal(one.ddr[written], two.ddr[written])


@pytest.mark.parametrize("name", CHANGES)
def test_options_show(name: str) -> None:
    config = find("scaled")
    cases = (random_program(config, seed) for seed in range(SEEDS))
    assert any(_differs(config, case, _changed(case, CHANGES[name])) for case in cases)


def _contents_changed(case: Case, dest: Dest, mask: list[int]) -> Case:
    """Bits inverted in what is loaded to `dest`, word by word in turn."""
    contents = case.ddr.copy()
    for command, fields in Program.from_image(case.image):
        if command.name == "LOAD" and fields["dest"] == dest and not fields["patch0"]:
            first = fields["ddr"] - case.ddr_base
            words = contents[first : first + fields["n0"]].view("<u4")
            words ^= np.resize(np.array(mask, np.uint32), words.shape)
    return replace(case, ddr=contents)


@pytest.mark.parametrize(
    ("dest", "mask"), [(Dest.KC, [0x11111111]), (Dest.CONTEXT, [1 << ACROSS, *[0] * (CONTEXT_WORDS - 1)])]
)
def test_tables_show(dest: Dest, mask: list[int]) -> None:
    """Group offset shifts, and the flag of a context that merges lanes."""
    config = find("scaled")
    cases = (random_program(config, seed) for seed in range(SEEDS))
    assert any(_differs(config, case, _contents_changed(case, dest, mask)) for case in cases)


@pytest.mark.parametrize("name", ["group scales", "activation shifts", "BF16 sink"])
def test_a_failing_program_is_reduced(name: str) -> None:
    """To the command that is wrong, what feeds it and what stores its result."""
    config = find("scaled")

    def fails(case: Case) -> bool:
        return _differs(config, case, _changed(case, CHANGES[name]))

    seed = next(seed for seed in range(SEEDS) if fails(random_program(config, seed)))
    plan = plan_program(config, seed)
    case = shrink(plan, fails)
    assert fails(case) and case.commands < plan.case().commands * 2 // 3, f"seed {seed}: {case.commands} commands"
    assert not differences(case, GoldenBackend(config).run(case), GoldenBackend(config).run(case))
