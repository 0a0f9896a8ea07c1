"""Cycles that a layer takes at least in each precision: what lowering it can save."""

from __future__ import annotations

from headrace.config import NpuConfig, Precision
from headrace_host.compiler.packing import entries_per_tile, fold_taps
from headrace_host.models.graph import UNIT, Conv2D, DepthwiseConv, FullyConnected, Graph


def layer_cycles(config: NpuConfig, graph: Graph, node: Conv2D | FullyConnected, precision: Precision) -> int:
    """The slowest of computing, draining the accumulators and fetching the weights once."""
    weight, out = graph.tensors[node.inputs[1]], graph.tensors[node.output]
    filters = out.shape[-1]
    kernel = node.kernel if isinstance(node, Conv2D) else UNIT
    channels = weight.shape[-1]
    fold = channels <= 4 and fold_taps(config) >= 1 and precision is not Precision.A4W4
    entries = entries_per_tile(config, kernel.y, kernel.x, channels, fold=fold, precision=precision)
    tiles, groups = -(-filters // config.cols), -(-(out.size // filters) // config.rows)
    row_group = max(entries * precision.phases, config.rows * config.acc_beats)
    return max(tiles * groups * row_group, tiles * entries * config.entry_beats)


def int4_activations(config: NpuConfig) -> bool:
    """Whether the machine's epilogue can write two codes a byte."""
    return config.cols % 2 == 0 and config.vector_lanes % 2 == 0


def first_layer(graph: Graph, node: Conv2D | FullyConnected | DepthwiseConv) -> bool:
    """Whether ``node`` reads the network's input, perhaps rescaled."""
    producer = graph.producer(node.inputs[0])
    return producer is None or producer.operator == "Quantize"
