"""Edges of a picture, found on the machine: the Sobel filter as a kernel of the dataflow array.

python examples/sobel.py photo.png          writes photo.sobel.png beside it
headrace kernel examples/sobel.py --explain shows the passes it becomes
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from headrace.config import machine
from headrace_host.kernels.running import run
from headrace_host.kernels.trace import U8, Stream, kernel


@kernel(result=U8, border="repeat")
def sobel(image: U8) -> Stream:
    """|gx| + |gy|, saturated to 0..255 when it is written."""
    # Each filter is a smoothing along one axis and a difference along the other.
    rows = image.shifted(-1, 0) + (image << 1) + image.shifted(1, 0)
    columns = image.shifted(0, -1) + (image << 1) + image.shifted(0, 1)
    gx = rows.shifted(0, 1) - rows.shifted(0, -1)
    gy = columns.shifted(1, 0) - columns.shifted(-1, 0)
    return abs(gx) + abs(gy)


def main(picture: Path) -> None:
    """Write the edges of a picture in grey beside it."""
    grey = np.asarray(Image.open(picture).convert("L"), np.uint8)[:, :, None]
    edges = run(sobel, {"image": grey}, machine("base"))
    target = picture.with_suffix(".sobel.png")
    Image.fromarray(edges[:, :, 0]).save(target)
    print(f"wrote {target}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/sobel.py PICTURE")
    main(Path(sys.argv[1]))
