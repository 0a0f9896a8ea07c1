"""A language model on a machine: command images for several tokens and for one, which share weights and caches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
LOGIT_BYTES = 16 << 10
"""Logits that leave the scratchpad at a time."""


@dataclass(frozen=True, kw_only=True)
class TextImage:
    """A command image for ``tokens`` tokens: what it reads and writes in DDR.

    ``codes`` and ``scales`` are rows of the embedding: int8, and fp32 in L equal lanes. ``rows`` are the residual's
    bf16 rows, at the end of the last layer; ``logits`` fp32, where the image has a head.
    """

    tokens: int
    model: CompiledModel
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

    def _build(self, tokens: int, tiling: Tiling) -> TextImage:
        d, config = self.model.dimensions, self.config
        self._check(tokens)
        image = KernelImage(config, area_bytes=self.area_bytes, beside=self._first)
        arena = Arena(config, image.memory.scratchpad)
        if self._first is None:
            self._first = image
            shape = CacheShape(heads=d.kv_heads, width=d.head_width, tokens=self.context, config=config)
            self._caches = [Cache(shape, image.memory, image.tensors, f"layer {i}") for i in range(len(self.layers))]
        for cache in self._caches:
            cache.use(image.memory)
        codes, scales, rows = self._inputs(image, tokens)
        image.begin("start")
        turn = Turn(image, self.model.rotary, self.context, tokens, d.head_width)
        bias = self._causal(image, arena, tokens) if tokens > 1 else None
        residual = Residual(image, arena, rows, tokens, d.width, keep=tiling.keep)
        layers = self._layers(image, arena, turn, bias, tiling)
        head = self._head(image, tokens) if self.head else None
        layers[0].stream_projections()
        residual.start(self._embedded(image, arena, codes, scales, tokens))
        for number, layer in enumerate(layers):
            following = layers[number + 1].stream_projections if number + 1 < len(layers) else _nothing
            layer.emit(residual, following)
        logits = None if head is None else self._logits(image, arena, residual, head, tokens)
        residual.finish()
        model = image.finish(f"{self.model.name}, {tokens} tokens")
        return TextImage(tokens=tokens, model=model, codes=codes, scales=scales, rows=rows, logits=logits)

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
        emit_rows(image, embed(), inputs, results, rows=(tokens,), elements=width)
        arena.free(x, s)
        return out

    def _layers(
        self, image: KernelImage, arena: Arena, turn: Turn, bias: Tensor | None, tiling: Tiling
    ) -> list[TransformerLayer]:
        model = self.model
        return [
            TransformerLayer(
                image, arena, model.layers[number], f"layer {number}", dimensions=model.dimensions,
                rotary=model.rotary, epsilon=model.epsilon, cache=cache, turn=turn, bias=bias, tiling=tiling,
            )
            for number, cache in zip(self.layers, self._caches, strict=True)
        ]  # fmt: skip

    def _head(self, image: KernelImage, tokens: int) -> Linear:
        weights = self.model.head.machine()
        return Linear(image.memory, image.constants, image.image, "head", weights, tokens)

    def _logits(self, image: KernelImage, arena: Arena, residual: Residual, head: Linear, tokens: int) -> Location:
        """Norm and head of all rows, a few n tiles at a time."""
        d, cols = self.model.dimensions, self.config.cols
        image.begin("head")
        logits = image.external("logits", tokens, 4 * d.vocabulary)
        step = max(1, min(LOGIT_BYTES // (4 * tokens * cols), self.config.column_words // self.config.acc_beats))
        head.stream(tokens, 0, min(step, head.tiles))
        rows = residual.read(0, tokens)
        n = arena.new("normalised", tokens, d.width, DType.BF16, bank=VECTORS)
        x, out = (RowTensor(view=t.view, kind=DType.BF16, steps=STEP) for t in (rows, n))
        emit_rows(
            image,
            rms_norm(self.model.output_norm, self.model.epsilon),
            {"x": x},
            [out],
            rows=(tokens,),
            elements=d.width,
        )
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
        return logits

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


Logits = NDArray[np.float32]
