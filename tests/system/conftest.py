"""Compiled machines, shared by the tests of a session."""

import functools

import pytest

from headrace.config import machine
from headrace_sim.programs.backends import RtlBackend


@functools.cache
def _backend(name: str) -> RtlBackend:
    return RtlBackend(machine(name))


@pytest.fixture(scope="session")
def backend():  # type: ignore[no-untyped-def]
    """Function from a machine's name to its compiled hardware."""
    return _backend
