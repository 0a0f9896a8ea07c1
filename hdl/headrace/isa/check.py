"""Checks of whole command images: ring order must be a valid sequential execution that this machine can carry out.

What depends on scalar registers (fields in a patched word) is left to the machine, unless their values are given.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.config import NpuConfig

from .assembler import Program, patched
from .commands import MAC, Dest, ScalarOp
from .errors import Cause
from .fields import Command, Engine
from .rules import MAC_RULE_FIELDS, mac_entries, mac_rule

__all__ = ["Problem", "check", "problems"]

TOKEN_MAX = 255
PAYLOAD_WORD = 4  # first 32-bit word a patch may change
SHAPE = ("n_tiles", "m_tiles", "t_count", "t_last", "m_count", "ilv", "depthwise")


@dataclass(frozen=True)
class Problem:
    """What is wrong with command `index` (or with the end of the image, when it is the number of commands)."""

    index: int
    message: str

    def __str__(self) -> str:
        return f"command {self.index}: {self.message}"


def check(program: Program, config: NpuConfig, scalars: Mapping[int, int] | None = None) -> None:
    """Raise ValueError with every problem of the image, if there are any."""
    found = problems(program, config, scalars)
    if found:
        raise ValueError("\n".join(map(str, found)))


def problems(program: Program, config: NpuConfig, scalars: Mapping[int, int] | None = None) -> list[Problem]:
    """Every problem of an image, in ring order. The image starts with no tokens, an empty ring and free accumulators.

    `scalars` are the registers at its start (those that are missing are zero); without them what patched words decide
    is not checked, which includes the ring once a WEIGHT or MAC command has any.

    Checked: field limits and the rules between fields; tokens are produced before they are consumed, do not overflow,
    have one producing and one consuming engine, and none is left over; every MAC is followed by the EPILOGUE of its
    shape; weight entries are there, have the MAC's tag, fit the ring where they must stay in it, none is left over, and
    WEIGHT commands do not fill their queue before the MAC that makes room for them.
    """
    checker = _Checker(config, scalars)
    for index, (command, values) in enumerate(program):
        checker.index = index
        checker.command(command, values)
    checker.index = len(program)
    checker.end()
    return checker.found


class _Checker:
    def __init__(self, config: NpuConfig, scalars: Mapping[int, int] | None) -> None:
        self._scalars = None if scalars is None else dict(scalars)
        self._ring_known = True
        self.index = 0
        self.found: list[Problem] = []
        self._config = config
        self._tokens: Counter[int] = Counter()
        self._producer: dict[int, Engine] = {}
        self._consumer: dict[int, Engine] = {}
        self._weights: deque[tuple[int, int]] = deque()  # runs of entries in the ring: tag, entries
        self._streamed: list[int] = [0]  # entries streamed by the first n WEIGHT commands
        self._released = 0  # entries given up by the MAC commands so far
        self._mac: dict[str, int] | None = None  # waits for its EPILOGUE

    def _problem(self, message: str) -> None:
        self.found.append(Problem(self.index, message))

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            self._problem(message)

    def command(self, command: Command, values: dict[str, int]) -> None:
        self._wait(command, values)
        for name in ("patch0", "patch1"):
            self._patch(f"{command.name}.{name}", values[name])
        if self._scalars is not None:
            values = patched(command, values, self._scalars)
            if command.name == "SCALAR":
                source = self._scalars.get(values["src"], 0) if values["op"] == ScalarOp.ADD else 0
                self._scalars[values["dst"]] = (source + values["imm"]) & 0xFFFFFFFF
        self._fields(command, values)
        unknown = _patched_words(values)
        self._ring_known &= not (unknown and command.name in ("WEIGHT", "MAC"))
        known = not any(f.offset // 32 in unknown for f in command.fields if f.offset // 32 >= PAYLOAD_WORD)
        rules = {"LOAD": self._load, "WEIGHT": self._weight, "MAC": self._mac_command, "EPILOGUE": self._epilogue}
        rules["VECTOR"] = self._vector
        if command.name in rules and (known or command.name != "VECTOR"):
            rules[command.name](values)
        self._signal(command, values)

    def end(self) -> None:
        for token in sorted(self._tokens):
            self._require(not self._tokens[token], f"token {token} is left with a count of {self._tokens[token]}")
        self._require(self._mac is None, "the last MAC has no EPILOGUE")
        left = sum(entries for _, entries in self._weights)
        self._require(not (left and self._ring_known), f"{left} weight entries are left in the ring")

    def _fields(self, command: Command, values: dict[str, int]) -> None:
        unknown = _patched_words(values)
        for f in command.fields:
            low, high = f.limits(self._config)
            if f.offset // 32 not in unknown and not low <= values[f.name] <= high:
                self._problem(f"{command.name}.{f.name}: {values[f.name]} is not in {low}..{high}")

    def _patch(self, where: str, patch: int) -> None:
        word, register = _patched_word(patch), patch >> 6 & 15
        if word is not None:
            self._require(word >= PAYLOAD_WORD, f"{where} changes the header")
            self._require(register < self._config.scalars, f"{where}: there is no scalar register {register}")
            self._require(not patch >> 15, f"{where}: bit 15 is set")

    def _wait(self, command: Command, values: dict[str, int]) -> None:
        for token in _tokens(values["wait"]):
            engine = self._consumer.setdefault(token, command.engine)
            self._require(engine is command.engine, f"token {token} is consumed by {engine.name} and others")
            self._require(token < self._config.tokens, f"token {token} does not exist")
            if self._tokens[token]:
                self._tokens[token] -= 1
            else:
                self._problem(f"waits for token {token}, which no earlier command produces")

    def _signal(self, command: Command, values: dict[str, int]) -> None:
        for token in _tokens(values["signal"]):
            engine = self._producer.setdefault(token, command.engine)
            self._require(engine is command.engine, f"token {token} is produced by {engine.name} and others")
            self._require(token < self._config.tokens, f"token {token} does not exist")
            self._tokens[token] += 1
            self._require(self._tokens[token] <= TOKEN_MAX, f"token {token} overflows")

    def _load(self, values: dict[str, int]) -> None:
        if values["dest"] == Dest.SPAD:
            return
        self._require(not values["fill"], "LOAD.fill: only the scratchpad can be filled")
        for name in ("ddr", "n0", "s1", "s2", "s3"):
            self._require(values[name] % 4 == 0, f"LOAD.{name}: {values[name]} is not a multiple of 4")

    def _weight(self, values: dict[str, int]) -> None:
        self._require(values["ddr"] % self._config.axi_bytes == 0, "WEIGHT.ddr is not aligned to a beat")
        self._require(values["step"] % self._config.axi_bytes == 0, "WEIGHT.step is not a multiple of a beat")
        if not self._ring_known:
            return
        entries = values["entries"] * values["outer"] * values["repeat"]
        self._weights.append((values["tag"], entries))
        self._streamed.append(self._streamed[-1] + entries)
        # A full queue stops the fetch, so what WEIGHT waits for must have been fetched before its queue is full.
        waiting = self._config.queue_depth + 1
        finished = self._streamed[-waiting - 1] if len(self._streamed) > waiting else 0
        if finished > self._released + self._config.ring_entries:
            self._problem(f"more than {waiting} WEIGHT commands wait for ring entries which only a later MAC releases")

    def _mac_command(self, values: dict[str, int]) -> None:
        config = self._config
        self._require(self._mac is None, "MAC before the EPILOGUE of the MAC before it")
        self._mac = values
        self._mac_fields(values)
        for name in ("t_count", "t_last"):
            self._require(values[name] % (1 << values["ilv"]) == 0, f"MAC.{name} is not a multiple of 2^ilv")
        if values["fold"]:
            self._require(values["cw"] == 1 and values["dil_x"] == 1, "MAC.fold needs cw = 1 and dil_x = 1")
        groups = (values["m_tiles"] - 1) * values["t_count"] + values["t_last"]
        self._require(groups * config.rows >= values["m_count"], "MAC: the tiles do not cover m_count")
        if not self._ring_known:
            return
        entries = mac_entries(config, values)
        resident = entries * (values["n_tiles"] if values["hold"] else 1 if values["replay"] else 0)
        if resident > config.ring_entries:
            self._problem(f"MAC needs {resident} weight entries in a ring of {config.ring_entries}")
        streamed = not (values["replay"] or values["hold"])
        consumed = entries * values["n_tiles"] * (values["m_tiles"] if streamed else 1)
        self._consume(consumed, values["tag"], keep=bool(values["hold"]))

    def _mac_fields(self, values: dict[str, int]) -> None:
        """The rules the machine checks, when all of their fields are known."""
        unknown = _patched_words(values)
        limits = ((MAC[name], *MAC[name].limits(self._config)) for name in MAC_RULE_FIELDS)
        if any(f.offset // 32 in unknown or not low <= values[f.name] <= high for f, low, high in limits):
            return
        error = mac_rule(self._config, values)
        if error is None:
            return
        cause, address = error
        if cause is Cause.RANGE:
            self._problem(f"MAC uses word {address} of {self._config.kc_words} of the table of group offset shifts")
        else:
            name = next(f.name for f in MAC.fields if f.offset == address)
            self._problem(f"MAC.{name}: {values[name]} is not possible together with the other fields")

    def _consume(self, count: int, tag: int, *, keep: bool) -> None:
        runs: list[tuple[int, int]] = []
        left = count
        while left and self._weights:
            found, entries = self._weights.popleft()
            used = min(left, entries)
            runs.append((found, used))
            left -= used
            if used < entries:
                self._weights.appendleft((found, entries - used))
        self._require(not left, f"MAC consumes {count} weight entries, {left} more than there are")
        self._released += 0 if keep else count
        wrong = {found for found, _ in runs} - {tag}
        self._require(not wrong, f"MAC.tag is {tag}, weight entries have {sorted(wrong)}")
        if keep:
            self._weights.extendleft(reversed(runs))

    def _epilogue(self, values: dict[str, int]) -> None:
        self._contexts("EPILOGUE", values)
        if self._mac is None:
            self._problem("EPILOGUE without a MAC")
            return
        for name in SHAPE:
            if values[name] != self._mac[name]:
                self._problem(f"EPILOGUE.{name} is {values[name]}, the MAC's {self._mac[name]}")
        self._mac = None

    def _vector(self, values: dict[str, int]) -> None:
        self._contexts("VECTOR", values)
        beats = values["n0"] * values["n1"] * values["n2"] * values["n3"]
        if values["wraps"] and beats > self._config.gasket_beats:
            self._problem(f"VECTOR wraps with {beats} beats, the gasket holds {self._config.gasket_beats}")

    def _contexts(self, name: str, values: dict[str, int]) -> None:
        last = values["ctx"] + values["wraps"]
        self._require(last < self._config.contexts, f"{name} uses context {last} of {self._config.contexts}")


def _patched_word(patch: int) -> int | None:
    """Number of the 32-bit word a patch changes, or None when it is not enabled."""
    return patch >> 10 & 31 if patch & 1 else None


def _patched_words(values: dict[str, int]) -> set[int]:
    return {word for name in ("patch0", "patch1") if (word := _patched_word(values[name])) is not None}


def _tokens(mask: int) -> list[int]:
    return [i for i in range(32) if mask >> i & 1]
