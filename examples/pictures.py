"""The pictures in the README, made on the generated hardware: `python examples/pictures.py docs/images`."""

import sys
from pathlib import Path

import numpy as np
from fir import fir
from PIL import Image, ImageDraw
from sobel import sobel

from headrace.config import machine
from headrace_host.kernels.running import run

SIZE = 192
SAMPLES = 192
TALLEST = 12_000
"""Sample that reaches the edge of the picture."""


def picture() -> np.ndarray:
    """Shapes on a gradient, grey."""
    image = Image.fromarray(np.tile(np.linspace(40, 140, SIZE).astype(np.uint8), (SIZE, 1)))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 24, 100, 104), fill=230)
    draw.ellipse((44, 48, 76, 80), fill=90)
    draw.rectangle((116, 40, 172, 90), fill=20)
    draw.polygon(((30, 170), (96, 118), (150, 176)), fill=200)
    draw.line((110, 110, 180, 160), fill=255, width=5)
    return np.asarray(image)


def noisy_sine() -> np.ndarray:
    """A sine with noise, int16."""
    noise = np.random.default_rng(3).normal(0, 1800, SAMPLES)
    return (7000 * np.sin(np.arange(SAMPLES) / 14) + noise).astype(np.int16)


def plot(signal: np.ndarray) -> Image.Image:
    """A signal as a line."""
    scale = 3
    image = Image.new("L", (SAMPLES * scale, 160), 255)
    height = 80 - signal.astype(float) * 78 / TALLEST
    points = [(x * scale, float(y)) for x, y in enumerate(height)]
    draw = ImageDraw.Draw(image)
    draw.line((0, 80, SAMPLES * scale, 80), fill=200)
    draw.line(points, fill=0, width=2)
    return image


def pictures(backend: str) -> dict[str, Image.Image]:
    """What the README shows, by file name."""
    base, shapes, noisy = machine("base"), picture(), noisy_sine()
    edges = run(sobel, {"image": shapes[:, :, None]}, base, backend=backend)
    filtered = run(fir, {"signal": noisy[:, None]}, base, backend=backend)
    return {
        "shapes.png": Image.fromarray(shapes),
        "edges.png": Image.fromarray(edges[:, :, 0]),
        "noisy.png": plot(noisy),
        "filtered.png": plot(filtered[:, 0]),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/pictures.py FOLDER")
    for name, image in pictures("rtl").items():
        image.save(Path(sys.argv[1]) / name)
        print(f"wrote {Path(sys.argv[1]) / name}")
