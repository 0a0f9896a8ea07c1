"""Dataflow array: a chain of columns of fp32 and int32 lanes behind the MAC array and beside the scratchpad."""
