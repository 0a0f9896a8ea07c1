"""Compiled machines, shared by the tests of a session."""

import functools

import pytest

from headrace_sim.programs.backends import RtlBackend
from headrace_sim.programs.machines import find


@functools.cache
def _backend(name: str) -> RtlBackend:
    return RtlBackend(find(name))


@pytest.fixture(scope="session")
def backend():  # type: ignore[no-untyped-def]
    """Function from a machine's name to its compiled hardware."""
    return _backend
