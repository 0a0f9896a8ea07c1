"""Choice of precision: exact evaluation, lowered networks on the golden machine, search within a budget."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from headrace.config import Precision, machine
from headrace_host.compiler.network import compile_graph
from headrace_host.device import open_device
from headrace_host.errors import HostError
from headrace_host.models.fetch import fetch_imagenet
from headrace_host.models.graph import Graph
from headrace_host.precision.choose import Choice, choose
from headrace_host.precision.cost import layer_cycles
from headrace_host.precision.evaluate import logits, run
from headrace_host.precision.images import CALIBRATION_IMAGES, calibration_images, image_files
from headrace_host.precision.lower import Calibration, can_lower, can_read_int4, lower, quantise_weights
from headrace_host.session import samples


@pytest.fixture
def network(graphs: ModuleType) -> Graph:
    """Convolutions with an inner tensor that can be INT4, a residual, pooling and a classifier."""
    build = graphs.Builder(5, (1, 8, 8, 3))
    first = build.conv(build.source, 16)
    inner = build.conv(first, 16)
    block = build.add(build.conv(inner, 16), first)
    deep = build.conv(block, 24, stride=(2, 2))
    graph: Graph = build.graph(build.dense(build.flatten(build.pool(deep, (4, 4), (1, 1))), 10))
    return graph


@pytest.fixture
def calibration(network: Graph) -> Calibration:
    images = np.random.default_rng(1).integers(-128, 128, (12, 8, 8, 3)).astype(np.int8)
    return Calibration.of(network, images)


def test_evaluation_equals_the_operators(network: Graph, reference: ModuleType) -> None:
    images = np.random.default_rng(0).integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)
    found = run(network, images)
    for i in range(len(images)):
        for name, value in reference.run(network, images[i : i + 1]).items():
            assert np.array_equal(found[name][i : i + 1], value), name


@pytest.mark.parametrize("name,choice", [("tiny", Choice.w4), ("base", Choice.mixed), ("odd", Choice.mixed)])
def test_lowered_networks_run_as_evaluated(name: str, choice: Choice, calibration: Calibration) -> None:
    config = machine(name)
    graph = choose(choice, calibration, config, budget=10.0).graph
    model = compile_graph(graph, config)
    image = calibration.images[:1]
    found, _ = open_device("golden", model).infer(model, {graph.inputs[0]: image})
    expected = run(graph, image)
    assert all(np.array_equal(value, expected[output]) for output, value in found.items())
    used = {layer.precision for layer in model.layers if layer.macs}
    even = config.cols % 2 == 0
    assert used == ({"A8W8", "A8W4", "A4W4"} if choice is Choice.mixed and even else {"A8W8", "A8W4"})


def test_first_layer_stays_and_w4_takes_all_others(calibration: Calibration) -> None:
    lowered = choose(Choice.w4, calibration, machine("base"))
    assert [reason.precision for reason in lowered.reasons] == ["A8W8"] + ["A8W4"] * 4
    assert all(reason.why for reason in lowered.reasons)
    weights = [t for t in lowered.graph.tensors.values() if t.dtype == "int4"]
    assert len(weights) == 4 and all(t.data is not None and t.data.min() >= -8 and t.data.max() <= 7 for t in weights)


@pytest.mark.parametrize("budget", [0.0, 0.1])
def test_mixed_keeps_its_budget(budget: float, calibration: Calibration) -> None:
    lowered = choose(Choice.mixed, calibration, machine("base"), budget=budget)
    expected = logits(calibration.graph, calibration.images)
    change = logits(lowered.graph, calibration.images) - expected
    measured = np.sqrt(np.mean(np.square(change))) / expected.std()
    assert measured == pytest.approx(lowered.loss, abs=1e-6) and measured <= budget
    assert (measured > 0) == any(reason.precision != "A8W8" for reason in lowered.reasons)


def test_only_tensors_with_one_reader_become_int4(network: Graph) -> None:
    able = [node.name for node in network.nodes if can_lower(node) and can_read_int4(network, node)]
    assert able == ["conv2"]


def test_bias_takes_up_the_mean_error(calibration: Calibration) -> None:
    """The mean of the first lowered layer's output stays, whatever its weights were rounded to."""
    graph, values = lower(calibration, {"conv1": Precision.A8W4})
    before, after = calibration.values["conv1"].astype(float), values["conv1"].astype(float)
    assert (before != after).any() and graph.tensors["conv1/w"].dtype == "int4"
    assert np.abs((before - after).mean(axis=(0, 1, 2))).max() < 1.5


def test_weights_compensate_each_other() -> None:
    """Two inputs that always agree: only the sum of their weights matters."""
    covariance = np.array([[1.0, 0.999], [0.999, 1.0]])
    real = np.array([[7.0, 0.4, 0.4]])
    alone = np.eye(3) * 1e-6
    alone[1:, 1:] += covariance
    alone[0, 0] = 1.0
    step, codes = quantise_weights(real, alone, np.zeros(1))
    assert abs((codes[0, 1:] * step).sum() - 0.8) < 0.5 * step


def test_filters_without_weight_keep_their_bias(calibration: Calibration) -> None:
    """A filter of zeros with a large bias: its INT4 bias fits 32 bits and means the same."""
    weight, bias = (calibration.graph.tensors[f"conv1/{which}"] for which in "wb")
    assert weight.data is not None and bias.data is not None
    weight.data[3], bias.data[3] = 0, 1 << 29
    silent = Calibration.of(calibration.graph, calibration.images)
    graph, values = lower(silent, {"conv1": Precision.A8W4})
    assert np.array_equal(values["conv1"][..., 3], silent.values["conv1"][..., 3])
    small = graph.tensors["conv1/b"]
    assert small.data is not None
    ratio = small.data[3] * graph.tensors["conv1/w"].scale[3] / (bias.data[3] * weight.scale[3])
    assert ratio == pytest.approx(1, abs=1e-6)


def test_cycles_of_layers(network: Graph) -> None:
    """On base: 16 row groups; 2 n tiles of 9 entries or 5; the classifier waits for its weights."""
    by_name = {node.name: node for node in network.nodes}
    costs = [layer_cycles(machine("base"), network, by_name["conv1"], precision) for precision in Precision]
    assert costs == [16 * 2 * 9 * 2, 16 * 2 * 5 * 2, 16 * 2 * 9]
    dense = by_name["dense7"]
    assert [layer_cycles(machine("base"), network, dense, p) for p in Precision] == [2 * 2 * 8, 2 * 8, 2 * 8]


def test_calibration_images_repeat_and_differ(network: Graph, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = image_files([tmp_path])
    first, again = (calibration_images(network, files, 5) for _ in range(2))
    assert first.shape == (5, 8, 8, 3) and np.array_equal(first, again)
    assert all((first[0] != other).any() for other in first[1:])


def test_errors_name_the_remedy(network: Graph, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="holds no PNG or JPEG file"):
        image_files([tmp_path])
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(HostError, match=r"bad.png: cannot be read as an image"):
        calibration_images(network, [tmp_path / "bad.png"], 1)


@pytest.mark.regress
def test_mixed_resnet8_keeps_its_accuracy(resnet8: Graph, cifar10: list[Path]) -> None:
    work = list(samples(resnet8, cifar10))
    images = np.concatenate([sample.value for sample in work])
    calibration = Calibration.of(resnet8, calibration_images(resnet8, fetch_imagenet(), CALIBRATION_IMAGES))
    lowered = choose(Choice.mixed, calibration, machine("base"))
    assert sum(reason.saved for reason in lowered.reasons) > 4000
    labels = np.array([sample.label for sample in work])
    right = [(logits(graph, images).argmax(axis=1) == labels).sum() for graph in (resnet8, lowered.graph)]
    assert right[1] >= right[0] - 1
