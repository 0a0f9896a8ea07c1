"""Golden model: executes command images in numpy, one command after the other; its results are the specification."""

from .errors import Fault, RunError, SequenceError
from .machine import GoldenMachine, RunResult
from .memory import Window

__all__ = ["Fault", "GoldenMachine", "RunError", "RunResult", "SequenceError", "Window"]
