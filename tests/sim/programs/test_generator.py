"""Random programs are valid, repeatable and worth running."""

import numpy as np
import pytest

from headrace.config import Precision, machine
from headrace.isa import BY_NAME, CONTEXT_FIELDS, CONTEXT_WORDS, DataflowOp, Dest, DType, MemIndex, Reduce
from headrace.isa.assembler import Program
from headrace.isa.check import problems
from headrace_sim.programs import Case, plan_program, random_program
from headrace_sim.programs.backends import GoldenBackend
from headrace_sim.programs.compare import differences
from headrace_sim.programs.machines import ODD, find
from headrace_sim.programs.shrink import shrink

MACHINES = [*ODD, "tiny", "odd", "thin", "base"]


@pytest.mark.parametrize("name", MACHINES)
def test_golden_runs_programs_without_error(name: str) -> None:
    config = find(name)
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


@pytest.mark.parametrize("name", [*ODD, "base"])
def test_programs_pass_the_checker(name: str) -> None:
    config = find(name)
    for seed in range(10):
        program = Program.from_image(random_program(config, seed).image)
        for problem in problems(program, config):
            patched = problem.index < len(program) and program[problem.index][1]["patch0"]
            assert patched, f"seed {seed}: {problem}"  # values of patched fields are the machine's to check


class _Seen:
    """Values of every command field and context field in some programs, and combinations of a MAC's options."""

    def __init__(self) -> None:
        self.fields: dict[tuple[str, str], set[int]] = {}
        self.contexts: dict[str, set[int]] = {}
        self.macs: set[tuple[int, ...]] = set()
        self.types: set[tuple[str, int, int]] = set()

    def add(self, case: Case) -> None:
        for command, fields in Program.from_image(case.image):
            for key, value in fields.items():
                self.fields.setdefault((command.name, key), set()).add(value)
            if command.name == "LOAD" and fields["dest"] == Dest.CONTEXT and not fields["patch0"]:
                self._add_contexts(case, fields)
            if command.name == "MAC":
                options = ("mode", "fold", "depthwise", "scales", "act_unsigned", "weight_unsigned")
                self.macs.add(tuple(fields[name] for name in options))
            if command.name == "VECTOR":
                self.types.add(("VECTOR", fields["x_type"], fields["o_type"]))
            if command.name == "EPILOGUE":
                self.types.add(("EPILOGUE", fields["res_type"], fields["out_type"]))

    def _add_contexts(self, case: Case, fields: dict[str, int]) -> None:
        first = fields["ddr"] - case.ddr_base
        for at in range(first, first + fields["n0"], 4 * CONTEXT_WORDS):
            bits = int.from_bytes(case.ddr[at : at + 4 * CONTEXT_WORDS].tobytes(), "little")
            for f in CONTEXT_FIELDS:
                self.contexts.setdefault(f.name, set()).add(bits >> f.offset & ((1 << f.width) - 1))


@pytest.fixture(scope="module")
def seen() -> _Seen:
    """What thirty programs of each of five machines use."""
    seen = _Seen()
    for name in ("odd", "base", "pair", "five", "scaled"):
        for seed in range(30):
            seen.add(random_program(find(name), seed))
    return seen


def test_every_command_field_is_used(seen: _Seen) -> None:
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
            always_equal = f.name in ("opcode", "reserved")
            if always_equal or unused or (command.name, f.name) in not_used or command.name == "END":
                continue
            values = seen.fields[command.name, f.name]
            assert len(values) > 1, f"{command.name}.{f.name} is always {values}"


def test_every_context_field_is_used(seen: _Seen) -> None:
    assert seen.contexts["op"] > set(DataflowOp)  # codes without an operation too
    assert seen.contexts["mem_index"] >= set(MemIndex)
    assert seen.contexts["reduce"] >= set(Reduce)
    assert all(len(values) > 1 for values in seen.contexts.values())


def test_every_kind_of_mac_is_used(seen: _Seen) -> None:
    for mode in Precision:
        for option in ("fold", "scales", "act_unsigned", "weight_unsigned"):
            at = ("mode", "fold", "depthwise", "scales", "act_unsigned", "weight_unsigned").index(option)
            for value in (0, 1):
                assert any(mac[0] == mode and mac[at] == value for mac in seen.macs), (mode, option, value)
    assert any(mac[2] for mac in seen.macs)


def test_every_element_type_is_used(seen: _Seen) -> None:
    for command in ("VECTOR", "EPILOGUE"):
        assert {source for name, source, _ in seen.types if name == command} == set(DType) - {DType.KA}
        assert {sink for name, _, sink in seen.types if name == command} == set(DType)


def test_shrink_keeps_what_fails() -> None:
    plan = plan_program(machine("odd"), 2)
    needle = max(plan.units(), key=lambda unit: unit[0])

    def fails(case: object) -> bool:
        return any(output.layer == needle[0] for output in case.outputs)  # type: ignore[attr-defined]

    case = shrink(plan, fails)
    assert {output.layer for output in case.outputs} == {needle[0]}
    assert case.commands < plan.case().commands
