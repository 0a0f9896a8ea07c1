"""Calibration images: photographs cropped, mirrored and brightened at random, scaled to a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace_host.errors import HostError
from headrace_host.models.graph import Graph
from headrace_host.session import image_codes

CALIBRATION_IMAGES = 200
"""How many are made of the photographs."""

SEED = 2
SMALLEST = 0.6
"""Least side of a crop, as a part of the photograph's shorter side."""
BRIGHTNESS = (0.7, 1.3)


def calibration_images(graph: Graph, paths: Sequence[Path], count: int) -> NDArray[np.generic]:
    """``count`` inputs of ``graph`` [count, height, width, 3], the same ones every time."""
    tensor = graph.tensors[graph.inputs[0]]
    if len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise HostError(f"network '{graph.name}' takes {tensor.shape}, not an RGB image; precision needs images")
    if not paths:
        raise HostError("no calibration image given; name image files or a folder of them")
    rng = np.random.default_rng(SEED)
    height, width = tensor.shape[1:3]
    codes = [image_codes(tensor, _variant(paths[i % len(paths)], height, width, rng)) for i in range(count)]
    return np.stack(codes)


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The image files among ``paths`` and in folders among them."""
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")) if path.is_dir() else []
        )
        if path.is_dir() and not inside:
            raise HostError(f"{path}: holds no PNG or JPEG file; give a folder of images")
        found += inside or [path]
    return found


def _variant(path: Path, height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            photograph = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise HostError(f"{path}: cannot be read as an image ({error}); give a PNG or JPEG file") from error
    side = min(photograph.width, photograph.height) * rng.uniform(SMALLEST, 1)
    left = rng.uniform(0, photograph.width - side)
    top = rng.uniform(0, photograph.height - side)
    scaled = photograph.resize(
        (width, height), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=2.0
    )
    pixels = np.asarray(scaled, np.float32) * rng.uniform(*BRIGHTNESS)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
