"""Kernels of language models as passes of the machine: quantisation of activations, layers with group scales."""
