"""Tokens order every conflict, and no program can lock up, whatever the engines' speed."""

from collections import deque

import numpy as np
import pytest

from headrace.config import NpuConfig, machine
from headrace.isa import Engine
from headrace_sim.programs import plan_program
from headrace_sim.programs.operation import Operation
from headrace_sim.programs.order import add_tokens
from headrace_sim.programs.schedule import ring_order


class _Race:
    """Engines of random speed with finite queues; a MAC completes only after its EPILOGUE has begun, a WEIGHT only
    after its MAC has begun (the ring may be full)."""

    def __init__(self, config: NpuConfig, operations: list[Operation], rng: np.random.Generator) -> None:
        self.operations, self.rng, self.depth = operations, rng, config.queue_depth
        self.queues = {engine: deque[int]() for engine in Engine if engine != Engine.CONTROL}
        self.running = {engine: deque[int]() for engine in self.queues}
        self.tokens = [0] * config.tokens
        self.started: dict[int, int] = {}
        self.done: dict[int, int] = {}
        self.fetched = 0
        self.time = 0
        self.speed = {engine: rng.uniform(0.02, 1.0) for engine in Engine}

    def run(self) -> None:
        idle = 0
        while len(self.done) < len(self.operations):
            self.time += 1
            steps = [self._fetch, *(lambda e=e: self._step(e) for e in self.queues)]
            moved = [step() for i, step in enumerate(steps) if self.rng.random() < self.speed[Engine((i - 1) % 7)]]
            idle = 0 if any(moved) else idle + 1
            assert idle < 2000, f"locked up with {len(self.done)} of {len(self.operations)} commands complete"

    def _fetch(self) -> bool:
        if self.fetched == len(self.operations):
            return False
        operation = self.operations[self.fetched]
        if operation.name == "END":
            if len(self.done) < self.fetched:
                return False
            self.done[self.fetched] = self.time
        elif operation.name == "SCALAR":
            if not self._take(operation):
                return False
            self.started[self.fetched] = self.done[self.fetched] = self.time
        elif len(self.queues[operation.engine]) == self.depth:
            return False
        else:
            self.queues[operation.engine].append(self.fetched)
        self.fetched += 1
        return True

    def _take(self, operation: Operation) -> bool:
        if any(not self.tokens[t] for t in operation.wait):
            return False
        for token in operation.wait:
            self.tokens[token] -= 1
        return True

    def _step(self, engine: Engine) -> bool:
        queue, running = self.queues[engine], self.running[engine]
        if running and self.rng.random() < 0.5 and self._can_finish(running[0]):
            index = running.popleft()
            self.done[index] = self.time
            for token in self.operations[index].signal:
                self.tokens[token] += 1
            return True
        if queue and len(running) < 2 and self._take(self.operations[queue[0]]):
            self.started[queue[0]] = self.time
            running.append(queue.popleft())
            return True
        return False

    def _can_finish(self, index: int) -> bool:
        name = self.operations[index].name
        if name == "MAC":
            return index + 1 in self.started
        if name == "WEIGHT":
            after = [i for i in range(index, len(self.operations)) if self.operations[i].name == "MAC"]
            return any(i in self.started for i in after)
        return True


@pytest.mark.parametrize("name", ["tiny", "thin"])
def test_conflicts_never_overlap(name: str) -> None:
    config = machine(name)
    for seed in range(8):
        plan = plan_program(config, seed)
        rng = np.random.default_rng([seed, 2])
        operations = ring_order(plan.atoms, queue_depth=config.queue_depth, rng=rng)
        operations.append(Operation.make(plan.space, "END", {}))
        add_tokens(operations, plan.space, rng)
        conflicts = _conflicts(operations, plan.space.size)
        for _ in range(6):
            race = _Race(config, operations, rng)
            race.run()
            assert not any(race.tokens), seed
            for first, second in conflicts:
                assert race.done[first] <= race.started[second], (seed, first, second)


def _conflicts(operations: list[Operation], size: int) -> list[tuple[int, int]]:
    """Pairs on different engines (or a read of what the same dataflow engine wrote) of which one writes."""
    out = []
    for second, later in enumerate(operations):
        reads, writes = np.zeros(size, bool), np.zeros(size, bool)
        reads[later.reads], writes[later.writes] = True, True
        for first in range(second):
            earlier = operations[first]
            raw = reads[earlier.writes].any()
            other = writes[earlier.writes].any() or writes[earlier.reads].any()
            if (earlier.engine != later.engine and (raw or other)) or (raw and earlier.engine == Engine.VECTOR):
                out.append((first, second))
    return out
