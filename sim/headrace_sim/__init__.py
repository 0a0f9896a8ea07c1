"""Headrace simulators: the numpy golden model and the compiled RTL."""
