"""The numpy rules equal TFLite's default interpreter on whole networks, intermediate by intermediate."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace_host.models.graph import Graph, Node
from headrace_host.session import samples
from headrace_host.tflite_reference import TfliteReference


def compare(graph: Graph, path: Path, images: list[Path], reference: ModuleType, keep: bool) -> None:
    """Compare what TFLite keeps: every tensor, or (``keep`` = False) the last scores and what they come from."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # keeping intermediates costs memory, which is fine here
        # One delegated subset a node: the default kernels, with every intermediate written to memory.
        interpreter = litert.Interpreter(
            str(path), experimental_preserve_all_tensors=keep, experimental_disable_delegate_node_fusion=keep
        )
    tflite = TfliteReference(interpreter)
    for sample in samples(graph, images):
        tflite.run(graph.tensors[graph.inputs[0]], sample.value)
        values = reference.run(graph, sample.value)
        for name in [node.output for node in graph.nodes] if keep else graph.outputs:
            assert np.array_equal(values[name], tflite.tensor(name)), f"{sample.name}: {name}"


@pytest.mark.parametrize("keep", [False, True])
def test_resnet8_equals_tflite(
    resnet8: Graph, resnet8_path: Path, cifar10: list[Path], reference: ModuleType, keep: bool
) -> None:
    compare(resnet8, resnet8_path, cifar10, reference, keep)


@pytest.mark.parametrize("keep", [False, True])
def test_visual_wake_words_equals_tflite(
    wake_words: Graph, wake_words_path: Path, photographs: list[Path], reference: ModuleType, keep: bool
) -> None:
    compare(wake_words, wake_words_path, photographs, reference, keep)


def test_resnet8_recognises_images(resnet8: Graph, cifar10: list[Path], reference: ModuleType) -> None:
    right = 0
    for sample in samples(resnet8, cifar10):
        right += int(reference.run(resnet8, sample.value)[resnet8.outputs[0]].argmax()) == sample.label
    assert right == 19


def test_an_unknown_operator_is_named(reference: ModuleType) -> None:
    node = Node(name="layer", index=0, inputs=(), output="y")
    with pytest.raises(TypeError, match="'layer': there is no reference for the operator Node"):
        reference.run_node(Graph, node, [])
