"""How the golden model reports what went wrong: as the machine would, or as a mistake of whoever wrote the image."""

from dataclasses import dataclass

from headrace.isa import Cause, Engine

__all__ = ["Fault", "RunError", "SequenceError"]


class Fault(Exception):
    """An error the machine stops for; raised by an engine, which knows neither its number nor the command's index."""

    def __init__(self, cause: Cause, address: int) -> None:
        super().__init__(f"{cause.name} at {address:#x}")
        self.cause = cause
        self.address = address


class SequenceError(Exception):
    """The image has no sequential meaning: the machine would wait for ever, or do what is not defined."""


@dataclass(frozen=True)
class RunError:
    """The first error in ring order, as the ERR_* registers hold it."""

    cause: Cause
    index: int
    engine: Engine
    address: int
