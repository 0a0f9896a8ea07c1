"""The numpy rules equal TFLite's default interpreter on a whole network, intermediate by intermediate."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace_host.models.fetch import image_label, load_image
from headrace_host.models.graph import Graph, Node


@pytest.mark.parametrize("keep_intermediates", [False, True])
def test_resnet8_equals_tflite(
    resnet8: Graph, resnet8_path: Path, cifar10: list[Path], reference: ModuleType, keep_intermediates: bool
) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # keeping intermediates costs memory, which is fine here
        # One delegated subset a node: the default kernels, with every intermediate written to memory.
        interpreter = litert.Interpreter(
            str(resnet8_path),
            experimental_preserve_all_tensors=keep_intermediates,
            experimental_disable_delegate_node_fusion=keep_intermediates,
        )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    # Without intermediates only the logits and the softmax survive an invocation.
    compared = [node.output for node in (resnet8.nodes if keep_intermediates else resnet8.nodes[-2:])]
    correct = 0
    for path in cifar10:
        image = load_image(path, resnet8.tensors[resnet8.inputs[0]].shape)
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        values = reference.run(resnet8, image)
        for name in compared:
            expected = interpreter.get_tensor(int(name.split(":")[0]))
            assert np.array_equal(values[name], expected), f"{path.name}: {name}"
        correct += int(values[resnet8.nodes[-1].inputs[0]].argmax()) == image_label(path)
    assert correct == 19


def test_an_unknown_operator_is_named(reference: ModuleType) -> None:
    node = Node(name="layer", index=0, inputs=(), output="y")
    with pytest.raises(TypeError, match="'layer': there is no reference for the operator Node"):
        reference.run_node(Graph, node, [])
