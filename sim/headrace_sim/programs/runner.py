"""Random programs on two simulators."""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.config import NpuConfig
from headrace.isa.assembler import Program

from .backends import BACKENDS, Backend
from .case import Case
from .compare import differences
from .generator import plan_program
from .shrink import shrink

__all__ = ["Report", "Runner"]


@dataclass(frozen=True)
class Report:
    """One seed: the program, what differed (nothing when empty), cycles, and the command that runs it again."""

    case: Case
    differences: list[str]
    cycles: int | None
    repeat: str

    @property
    def passed(self) -> bool:
        return not self.differences

    def text(self) -> str:
        """The failure in full, commands included."""
        case = self.case
        head = f"seed {case.seed} on {case.config.name}: {case.commands} commands; again: {self.repeat}"
        layers = [f"layer {i}: {d}" for i, d in enumerate(case.description)]
        program = [f"{i:4} {line}" for i, line in enumerate(Program.from_image(case.image).text().splitlines())]
        return "\n".join([head, *layers, *self.differences, "commands:", *program])


class Runner:
    """Runs random programs of a machine on a reference and a simulator under test."""

    def __init__(self, config: NpuConfig, *, reference: str = "golden", tested: str = "rtl", layers: int = 4) -> None:
        self._config = config
        self._layers = layers
        self._names = (reference, tested)
        self._reference: Backend = BACKENDS[reference](config)
        self._tested: Backend = BACKENDS[tested](config)

    def run(self, seed: int, *, smaller: bool = False) -> Report:
        """Run one seed; with `smaller` a failing program is reduced first."""
        plan = plan_program(self._config, seed, layers=self._layers)
        case = plan.case()
        found, cycles = self.compare(case)
        if found and smaller:
            case = shrink(plan, lambda candidate: bool(self.compare(candidate)[0]))
            found, cycles = self.compare(case)
        return Report(case, found, cycles, self._repeat(seed))

    def run_all(self, seeds: range) -> Iterator[Report]:
        """Run the seeds in order."""
        for seed in seeds:
            yield self.run(seed)

    def compare(self, case: Case) -> tuple[list[str], int | None]:
        """Differences and cycles of one case."""
        expected = self._reference.run(case)
        actual = self._tested.run(case)
        return differences(case, expected, actual), actual.cycles

    def _repeat(self, seed: int) -> str:
        reference, tested = self._names
        machines = "" if (reference, tested) == ("golden", "rtl") else f" --reference {reference} --tested {tested}"
        layers = "" if self._layers == 4 else f" --layers {self._layers}"
        return f"python -m headrace_sim.programs --machine {self._config.name} --seed {seed}{layers}{machines}"
