"""Running a text on a device: rows of the embedding in, scalar registers, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace_host.device import Device, RunStats, open_device
from headrace_host.errors import DeviceError
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.transformer.text import TextImage, TextMachine, embedding_rows


class TextRunner:
    """A device with the images of ``text`` for the numbers of tokens ``sizes``; its caches start empty (zeros)."""

    def __init__(self, text: TextMachine, *, sizes: Sequence[int], backend: str = "golden") -> None:
        self._text = text
        self._images = {size: text.build(size) for size in sizes}
        last = text.last_built
        self.device: Device = open_device(backend, last)
        for model in (model for image in self._images.values() for model in image.models):
            self.device.write(model.ring_address, model.ring)
        embedding = text.model.embedding.machine()
        if not isinstance(embedding, RowWeights):
            raise DeviceError(f"'{text.model.name}': an embedding in 4-bit groups; convert it to INT8 rows")
        self._embedding = embedding
        self.stats = RunStats()
        """Of the last image that ran."""

    def image(self, tokens: int) -> TextImage:
        """The image for ``tokens`` tokens."""
        return self._images[tokens]

    def run(self, tokens: Sequence[int], position: int) -> NDArray[np.float32]:
        """Feed ``tokens``, the first at ``position``; logits [tokens, vocabulary], without a head the residual."""
        image = self._images[len(tokens)]
        codes, scales = embedding_rows(self._embedding, list(tokens), self._text.config.vector_lanes)
        for location, content in ((image.codes, codes), (image.scales, scales)):
            assert location.ddr is not None
            self.device.write(location.ddr, content)
        scalars = self._text.scalars(position, len(tokens))
        for model in image.models:
            self.stats = self.device.execute(model, scalars)
        result = image.logits or image.rows
        assert result.ddr is not None
        content = self.device.read(result.ddr, result.pixels * result.channels)
        if image.logits is not None:
            return np.frombuffer(content, "<f4").reshape(len(tokens), -1)
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(len(tokens), -1)
