"""A language model on a machine: command images for several tokens and for one, which share weights and caches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import DType
from headrace_host.compiler.model import CompiledModel
from headrace_host.compiler.operands import Location
from headrace_host.errors import CompileError
from headrace_host.kernels.image import KernelImage
from headrace_host.kernels.linear import Linear, Rows
from headrace_host.kernels.row_weights import RowWeights
from headrace_host.kernels.rows import RowTensor, emit_rows
from headrace_host.kernels.transformer import embed, rms_norm
from headrace_host.models.language import LanguageModel
from headrace_host.transformer.cache import Cache, CacheShape
from headrace_host.transformer.layer import Tiling, TransformerLayer
from headrace_host.transformer.positions import registers
from headrace_host.transformer.quantiser import STEP, Quantiser
from headrace_host.transformer.residual import Residual
from headrace_host.transformer.rotary import Turn
from headrace_host.transformer.tensors import OPERANDS, VECTORS, Arena, Tensor

PAGE = 4096
RING_LAYERS = 10
"""Layers of several tokens whose commands a ring holds."""
LOGIT_BYTES = 16 << 10
"""Logits that leave the scratchpad at a time."""


@dataclass(frozen=True, kw_only=True)
class TextImage:
    """Command images for ``tokens`` tokens, to be run one after the other: what they read and write in DDR.

    ``codes`` and ``scales`` are rows of the embedding: int8, and fp32 in L equal lanes. ``rows`` are the residual's
    bf16 rows, at the end of the last layer; ``logits`` fp32, where the image has a head.
    """

    tokens: int
    models: tuple[CompiledModel, ...]
    codes: Location
    scales: Location
    rows: Location
    logits: Location | None


@dataclass
class TextMachine:
    """Builds the images of ``model`` for texts of up to ``context`` tokens.

    ``layers`` are the numbers of the layers that run, in order (a layer may run more than once, each time with a cache
    of its own); ``head``: logits at the end.

    Raises:
        CompileError: when the model does not fit the machine.
    """

    model: LanguageModel
    config: NpuConfig
    context: int
    layers: tuple[int, ...]
    head: bool = True
    _first: KernelImage | None = field(default=None, init=False)
    _caches: list[Cache] = field(default_factory=list, init=False)
    _built: dict[int, TextImage] = field(default_factory=dict, init=False)

    def build(self, tokens: int) -> TextImage:
        """The image for ``tokens`` tokens; several only start at a position that is a multiple of their number."""
        if tokens not in self._built:
            self._built[tokens] = self._build(tokens, default_tiling(self.config, tokens))
        return self._built[tokens]

    @property
    def last_built(self) -> CompiledModel:
        """The image that was built last: its constants are those of all."""
        return max((m for image in self._built.values() for m in image.models), key=lambda model: model.ddr_end)

    def _build(self, tokens: int, tiling: Tiling) -> TextImage:
        self._check(tokens)
        size = RING_LAYERS if tokens > 1 else len(self.layers)
        starts = range(0, len(self.layers), size)
        image = self._begin()
        codes, scales, rows = self._inputs(image, tokens)
        logits = image.external("logits", tokens, 4 * self.model.dimensions.vocabulary) if self.head else None
        models = []
        for number, start in enumerate(starts):
            image = self._begin() if number else image
            arena = Arena(self.config, image.memory.scratchpad)
            residual = Residual(image, arena, rows, tokens, self.model.dimensions.width, keep=tiling.keep)
            image.begin("start")
            layers = self._layers(image, arena, tiling, range(start, min(start + size, len(self.layers))))
            layers[0].stream_projections()
            if number == 0:
                residual.start(self._embedded(image, arena, codes, scales, tokens))
            for layer, following in zip(layers, [*(e.stream_projections for e in layers[1:]), _nothing]):
                layer.emit(residual, following)
            if logits is not None and number == len(starts) - 1:
                self._logits(image, arena, residual, logits)
            residual.finish()
            models.append(image.finish(f"{self.model.name}, {tokens} tokens, part {number}"))
        return TextImage(tokens=tokens, models=tuple(models), codes=codes, scales=scales, rows=rows, logits=logits)

    def _begin(self) -> KernelImage:
        """An image beside those before; the first makes the caches."""
        image = KernelImage(self.config, area_bytes=self.area_bytes, beside=self._first)
        if self._first is None:
            self._first, d = image, self.model.dimensions
            shape = CacheShape(heads=d.kv_heads, width=d.head_width, tokens=self.context, config=self.config)
            self._caches = [Cache(shape, image.memory, image.tensors, f"layer {i}") for i in range(len(self.layers))]
        for cache in self._caches:
            cache.use(image.memory)
        return image

    def _check(self, tokens: int) -> None:
        unit = max(self.config.cols, self.config.word_bytes, self.config.vector_lanes)
        if (tokens > 1 and tokens % unit) or self.context % tokens:
            raise CompileError(
                f"machine '{self.config.name}' takes 1 token at once, or a multiple of {unit} that divides the context "
                f"of {self.context}, not {tokens}"
            )

    @property
    def area_bytes(self) -> int:
        """Bytes of DDR that runs write: caches, inputs, residual, logits; of images of up to 64 tokens, thrice."""
        d = self.model.dimensions
        cache = len(self.layers) * d.kv_heads * self.context * (2 * d.head_width + 8)
        rows = 64 * (3 * d.width + 4 * d.vocabulary * self.head + 4 * self.config.vector_lanes)
        return -(-(cache + 3 * rows + (1 << 16)) // PAGE) * PAGE

    def _inputs(self, image: KernelImage, tokens: int) -> tuple[Location, Location, Location]:
        width, lanes = self.model.dimensions.width, self.config.vector_lanes
        codes = image.external("embedding codes", tokens, width)
        return codes, image.external("embedding scales", tokens, 4 * lanes), image.external("rows", tokens, 2 * width)

    def _causal(self, image: KernelImage, arena: Arena, tokens: int) -> Tensor:
        """bf16 [token, key of this run]: 0, or minus infinity where the key comes later."""
        bits = np.where(np.tri(tokens, dtype=bool), 0, 0xFF80).astype("<u2")
        bias = arena.new("causal bias", tokens, tokens, DType.BF16, bank=VECTORS, high=True)
        address = image.image.placed(f"causal bias {tokens}", bits.tobytes)
        image.memory.load_constant(address, bias.view)
        return bias

    def _embedded(self, image: KernelImage, arena: Arena, codes: Location, scales: Location, tokens: int) -> Tensor:
        lanes, width = self.config.vector_lanes, self.model.dimensions.width
        x = arena.new("embedding codes", tokens, width, DType.I8, bank=OPERANDS)
        s = arena.new("embedding scales", tokens, lanes, DType.B32, bank=OPERANDS)
        out = arena.new("rows", tokens, width, DType.BF16, bank=VECTORS)
        for location, tensor in ((codes, x), (scales, s)):
            image.memory.load(location, 0, tokens, tensor.view, 0)
        inputs = {
            "codes": RowTensor(view=x.view, kind=DType.I8, steps=STEP),
            "scale": RowTensor(view=s.view, kind=DType.B32, steps=STEP),
        }
        results = [RowTensor(view=out.view, kind=DType.BF16, steps=STEP)]
        emit_rows(image, embed, inputs, results, rows=(tokens,), elements=width)
        arena.free(x, s)
        return out

    def _layers(self, image: KernelImage, arena: Arena, tiling: Tiling, some: range) -> list[TransformerLayer]:
        model, tokens = self.model, tiling.tokens
        turn = Turn(image, model.rotary, self.context, tokens, model.dimensions.head_width)
        bias = self._causal(image, arena, tokens) if tokens > 1 else None
        return [
            TransformerLayer(
                image, arena, model.layers[self.layers[i]], f"layer {self.layers[i]}", dimensions=model.dimensions,
                rotary=model.rotary, epsilon=model.epsilon, cache=self._caches[i], turn=turn, bias=bias, tiling=tiling,
            )
            for i in some
        ]  # fmt: skip

    def _logits(self, image: KernelImage, arena: Arena, residual: Residual, logits: Location) -> None:
        """Norm and head of all rows, a few n tiles at a time."""
        d, cols, tokens = self.model.dimensions, self.config.cols, logits.pixels
        image.begin("head")
        head = Linear(image.memory, image.constants, image.image, "head", self.model.head.machine(), tokens)
        step = max(1, min(LOGIT_BYTES // (4 * tokens * cols), self.config.column_words // self.config.acc_beats))
        head.stream(tokens, 0, min(step, head.tiles))
        rows = residual.read(0, tokens)
        n = arena.new("normalised", tokens, d.width, DType.BF16, bank=VECTORS)
        x, out = (RowTensor(view=t.view, kind=DType.BF16, steps=STEP) for t in (rows, n))
        kernel = rms_norm(self.model.output_norm, self.model.epsilon)
        emit_rows(image, kernel, {"x": x}, [out], rows=(tokens,), elements=d.width)
        residual.release(rows)
        operand = Quantiser(image, arena).emit(n, tokens)
        arena.free(n)
        for first in range(0, head.tiles, step):
            tiles = min(step, head.tiles - first)
            if first + tiles < head.tiles:
                head.stream(tokens, first + tiles, min(step, head.tiles - first - tiles))
            part = arena.new("logits", tokens, tiles * cols, DType.B32, bank=VECTORS)
            codes, scales = operand.codes.view, operand.scales.view
            head.multiply(Rows(codes=codes, scales=scales, out=part.view, count=tokens, kind=DType.B32), first, tiles)
            channels = min(tiles * cols, d.vocabulary - first * cols)
            image.memory.store_columns(logits, 4 * first * cols, 4 * channels, part.view)
            arena.free(part)

    def scalars(self, position: int, tokens: int) -> dict[int, int]:
        """Scalar registers of a run of ``tokens`` tokens from ``position`` on."""
        return registers(self.config, position, tokens, self.model.dimensions.head_width)


def embedding_rows(weights: RowWeights, tokens: list[int], lanes: int) -> tuple[bytes, bytes]:
    """The codes and scales of ``tokens`` as an image reads them."""
    scales = np.repeat(weights.scale[tokens].astype("<f4")[:, None], lanes, axis=1)
    return weights.codes[tokens].tobytes(), scales.tobytes()


def default_tiling(config: NpuConfig, tokens: int) -> Tiling:
    """Few rows stay in the scratchpad; many are cut to what it holds."""
    if tokens <= 16:
        return Tiling(tokens=tokens, hidden_rows=tokens, hidden_tiles=1 << 12, keep=True)
    return Tiling(tokens=tokens, hidden_rows=tokens // 2, hidden_tiles=4, keep=False)


def _nothing() -> None:
    """After the last layer nothing is ahead."""
