"""LOAD and STORE of tensors with random DDR layouts, random walks, fills, and operands patched from scalars."""

from dataclasses import dataclass
from itertools import pairwise

from .allocate import Tensor
from .builder import Builder
from .patches import emit_patched

__all__ = ["load_tensor", "store_tensor", "walks"]


@dataclass(frozen=True)
class _Layout:
    """How rows of pixels lie in DDR: bytes from pixel to pixel and from row to row."""

    rows: int
    width: int
    channels: int
    pixel_pitch: int
    row_pitch: int

    @property
    def size(self) -> int:
        return (self.rows - 1) * self.row_pitch + (self.width - 1) * self.pixel_pitch + self.channels

    def walk(self, first_row: int, rows: int) -> dict[str, int]:
        """Fields of a walk over some rows; `ddr` and `p0` are relative to the tensor."""
        fields = {"ddr": first_row * self.row_pitch, "p0": first_row * self.width, "pix_bytes": self.channels}
        if self.pixel_pitch == self.channels:
            return fields | {"n0": self.width * self.channels, "n1": rows, "s1": self.row_pitch, "d1": self.width}
        return fields | {
            "n0": self.channels, "n1": self.width, "s1": self.pixel_pitch, "d1": 1,
            "n2": rows, "s2": self.row_pitch, "d2": self.width,
        }  # fmt: skip


def _layout(build: Builder, tensor: Tensor) -> _Layout:
    divisors = [d for d in range(1, tensor.pixels + 1) if tensor.pixels % d == 0]
    rows = int(build.rng.choice(divisors))
    width = tensor.pixels // rows
    pitch = tensor.channels + (build.pick(1, 9) if build.chance(0.3) else 0)
    row = (width - 1) * pitch + tensor.channels
    return _Layout(rows, width, tensor.channels, pitch, row + (build.pick(1, 40) if build.chance(0.4) else 0))


def _walks(build: Builder, tensor: Tensor, layout: _Layout) -> list[dict[str, int]]:
    """Fields of commands that together move the tensor once, `ddr` relative; sometimes upside down."""
    cuts = [0, layout.rows]
    if layout.rows > 1 and build.chance(0.5):
        cuts = sorted({0, build.pick(1, layout.rows - 1), layout.rows})
    walks = []
    for first, end in pairwise(cuts):
        fields = tensor.view() | layout.walk(first, end - first)
        fields["p0"] += tensor.p0
        if build.chance(0.15) and layout.pixel_pitch == layout.channels:  # last row first
            fields["ddr"] += (end - first - 1) * layout.row_pitch
            fields["p0"] += (end - first - 1) * layout.width
            fields |= {"s1": -layout.row_pitch, "d1": -layout.width}
        walks.append(fields)
    return walks


def load_tensor(build: Builder, tensor: Tensor) -> None:
    """Load all pixels and channels of a tensor from a new place in DDR."""
    layout = _layout(build, tensor)
    address = build.ddr.place_input(layout.size)
    for fields in _walks(build, tensor, layout):
        build.emit("LOAD", fields | {"ddr": address + fields["ddr"]})


def store_tensor(build: Builder, tensor: Tensor) -> None:
    """Store all pixels and channels of a tensor to a new place in DDR."""
    layout = _layout(build, tensor)
    address = build.ddr.place_output(layout.size)
    for fields in _walks(build, tensor, layout):
        build.emit("STORE", fields | {"ddr": address + fields["ddr"]})


def walks(build: Builder) -> None:
    """Append a layer of LOADs, fills and STOREs with odd sizes that overlap on chip and depend on scalar registers.

    Raises:
        NoRoom: when something does not fit.
    """
    build.new_unit()
    build.layer.description = "random walks"
    pixels = build.pick(1, 40) if build.chance(0.8) else build.pick(100, 300)
    tensor = build.chip.tensor(pixels=pixels, channels=build.pick(1, 3 * build.config.word_bytes))
    build.fill(tensor)
    for _ in range(build.pick(2, 6)):
        build.new_unit()
        kind = build.pick(0, 3)
        if kind == 0:
            _random_walk(build, tensor, "LOAD", {})
        elif kind == 1:
            _random_walk(build, tensor, "LOAD", {"fill": 1, "fill_value": build.pick(0, 255)})
        elif kind == 2:
            _random_walk(build, tensor, "STORE", {})
        else:
            _there_and_back(build, tensor)
    store_tensor(build, tensor)


def _random_walk(build: Builder, tensor: Tensor, name: str, fields: dict[str, int]) -> None:
    """A walk inside the tensor: random loops over pixels, random channel range, random DDR strides without overlap."""
    channels = build.pick(1, tensor.channels)
    first_channel = build.pick(0, tensor.channels - channels)
    pixels = build.pick(1, max(1, tensor.pixels // 3))
    counts: list[int] = []
    steps: list[int] = []
    reach = pixels
    for _ in range(3):
        count = build.pick(1, 3) if build.chance(0.6) else 1
        step = build.pick(-3, 5)
        if name == "LOAD" and step < pixels:  # the order of writes to one byte within a command is not tested
            step = pixels if not steps else max(reach, 1)
        if reach + (count - 1) * abs(step) > tensor.pixels:
            count = 1
        counts.append(count)
        steps.append(step)
        reach += (count - 1) * abs(step)
    lowest = sum((n - 1) * min(d, 0) for n, d in zip(counts, steps))
    p0 = tensor.p0 - lowest + build.pick(0, tensor.pixels - reach)
    size = channels * pixels - (build.pick(0, channels - 1) if build.chance(0.3) else 0)
    strides, span = [], size
    for count in counts:
        strides.append(span + (build.pick(0, 20) if build.chance(0.5) else 0))
        span += (count - 1) * strides[-1]
    place = build.ddr.place_output if name == "STORE" else build.ddr.place_input
    address = place(span)
    for i, count in enumerate(counts):
        if build.chance(0.2):
            address += (count - 1) * strides[i]
            strides[i] = -strides[i]
    fields = (
        fields
        | tensor.view()
        | {"p0": p0, "c0": tensor.c0 + first_channel, "n0": size, "pix_bytes": channels, "ddr": address}
    )
    for i in range(3):
        fields |= {f"n{i + 1}": counts[i], f"s{i + 1}": strides[i], f"d{i + 1}": steps[i]}
    emit_patched(build, name, fields)


def _there_and_back(build: Builder, tensor: Tensor) -> None:
    """Store part of the tensor, and load it back from DDR elsewhere on chip."""
    channels = build.pick(1, tensor.channels)
    pixels = build.pick(1, tensor.pixels)
    address = build.ddr.place_output(channels * pixels)
    walk = tensor.view() | {"ddr": address, "n0": channels * pixels, "pix_bytes": channels}
    emit_patched(build, "STORE", walk | {"p0": tensor.p0 + build.pick(0, tensor.pixels - pixels)})
    emit_patched(build, "LOAD", walk | {"c0": tensor.c0 + build.pick(0, tensor.channels - channels)})
