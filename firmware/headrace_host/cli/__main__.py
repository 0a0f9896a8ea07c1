"""python -m headrace_host.cli."""

from headrace_host.cli import app

app()
