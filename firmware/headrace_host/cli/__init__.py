"""The command line: every module registers its commands with the application."""

from headrace_host.cli import benches, hardware, language, networks
from headrace_host.cli.common import app

__all__ = ["app", "benches", "hardware", "language", "networks"]
