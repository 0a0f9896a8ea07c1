"""Random programs are valid, repeatable and worth running."""

import numpy as np
import pytest

from headrace.config import machine
from headrace.isa import BY_NAME, DataflowOp, Dest
from headrace.isa.assembler import Program
from headrace_sim.programs import plan_program, random_program
from headrace_sim.programs.backends import GoldenBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.shrink import shrink

MACHINES = ["tiny", "odd", "thin", "base"]


@pytest.mark.parametrize("name", MACHINES)
def test_golden_runs_programs_without_error(name: str) -> None:
    config = machine(name)
    backend = GoldenBackend(config)
    for seed in range(12):
        case = random_program(config, seed)
        outcome = backend.run(case)
        assert outcome.error is None and outcome.end_value == case.end_value, (seed, outcome.error)
        assert differences(case, outcome, outcome) == [], seed
        values = outcome.ddr[case.written()]
        assert values.size == 0 or (values != case.ddr[case.written()]).mean() > 0.9, seed


def test_equal_seeds_give_equal_programs() -> None:
    one, two = (random_program(machine("odd"), 5) for _ in range(2))
    assert one.image == two.image
    assert np.array_equal(one.ddr, two.ddr)
    assert random_program(machine("odd"), 6).image != one.image


def test_high_addresses() -> None:
    config = machine("tiny")
    case = random_program(config, 3, ddr_base=0xAB_0000_0000)
    assert GoldenBackend(config).run(case).error is None


def test_every_option_is_used() -> None:
    """Sixty programs of two machines use every command and every field that is not reserved."""
    seen: dict[tuple[str, str], set[int]] = {}
    operations: set[int] = set()
    for name in ("odd", "base"):
        config = machine(name)
        for seed in range(30):
            case = random_program(config, seed)
            for command, fields in Program.from_image(case.image):
                for key, value in fields.items():
                    seen.setdefault((command.name, key), set()).add(value)
                if command.name == "LOAD" and fields["dest"] == Dest.CONTEXT and not fields["patch0"]:
                    first = fields["ddr"] - case.ddr_base
                    operations |= set((case.ddr[first : first + fields["n0"] : 16] & 63).tolist())
    assert operations >= set(DataflowOp)
    always_equal = {"opcode", "reserved", "mode", "scales", "weight_unsigned", "act_unsigned"}
    not_used = {
        ("WEIGHT", "signal"),
        ("SCALAR", "signal"),
        ("WEIGHT", "patch1"),
        ("MAC", "patch1"),
        ("VECTOR", "patch1"),
        ("EPILOGUE", "patch0"),
        ("EPILOGUE", "patch1"),
    }  # nothing waits for those
    for command in BY_NAME.values():
        for f in command.fields:
            unused = f.name.startswith("patch") and command.name == "SCALAR"
            if f.name in always_equal or unused or (command.name, f.name) in not_used or command.name == "END":
                continue
            assert len(seen[command.name, f.name]) > 1, (
                f"{command.name}.{f.name} is always {seen[command.name, f.name]}"
            )


def test_shrink_keeps_what_fails() -> None:
    plan = plan_program(machine("odd"), 2)
    needle = max(plan.units(), key=lambda unit: unit[0])

    def fails(case: object) -> bool:
        return any(output.layer == needle[0] for output in case.outputs)  # type: ignore[attr-defined]

    case = shrink(plan, fails)
    assert {output.layer for output in case.outputs} == {needle[0]}
    assert case.commands < plan.case().commands
