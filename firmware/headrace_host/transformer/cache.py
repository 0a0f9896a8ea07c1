"""Keys and values of all tokens so far in DDR, as weight entries of the MAC array: appending moves no old token.

| | DDR order, outermost first | an entry |
|---|---|---|
| keys | head, tile of C tokens, word of 2K dimensions | C tokens of 2K dimensions |
| values | head, tile of C dimensions, block of 2K tokens | C dimensions of 2K tokens |
| scales of either | head, token | fp32 |

So a new key is head width / 2K segments of 2K bytes, a new value a byte in every column of one entry a tile. What has
not been written is zero: the host clears the cache once, at the start of a text nothing has to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config import NpuConfig
from headrace.isa.assembler import patch
from headrace_host.allocate import DdrAllocator
from headrace_host.compiler.layout import View
from headrace_host.compiler.operands import Memory
from headrace_host.compiler.packing import GROUP_CODES
from headrace_host.compiler.stream import DDR_GRANULE, Access, Space
from headrace_host.errors import CompileError
from headrace_host.transformer.positions import Register

SCALE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """``heads`` keys and values of ``width`` dimensions for ``tokens`` tokens, on one machine."""

    heads: int
    width: int
    tokens: int
    config: NpuConfig

    def __post_init__(self) -> None:
        config = self.config
        for what, size, unit in (
            ("head width", self.width, config.word_bytes),
            ("head width", self.width, config.cols),
            ("context", self.tokens, max(config.cols, config.word_bytes, GROUP_CODES)),
        ):
            if size % unit:
                raise CompileError(f"machine '{config.name}': a {what} of {size} is no multiple of {unit}")
        if config.word_bytes % config.cols or config.cols % config.vector_lanes:
            raise CompileError(
                f"machine '{config.name}': attention needs words of whole n tiles and n tiles of whole beats"
            )
        if config.entry_beats * config.axi_bytes != config.cols * config.word_bytes:
            raise CompileError(f"machine '{config.name}': a weight entry does not fill its last beat; widen cols")

    @property
    def head_bytes(self) -> int:
        """Bytes of the keys, and of the values, of one head."""
        return self.tokens * self.width

    @property
    def words(self) -> int:
        """Words of a head: weight entries of a tile of keys."""
        return self.width // self.config.word_bytes

    @property
    def value_tiles(self) -> int:
        """n tiles of a head's values."""
        return self.width // self.config.cols


class Cache:
    """The cache of one layer: where it lies in DDR, and the commands that append to it and stream it."""

    def __init__(self, shape: CacheShape, memory: Memory, tensors: DdrAllocator, name: str) -> None:
        self.shape, self._memory, self._config = shape, memory, shape.config
        size = shape.heads * shape.head_bytes
        self.keys = tensors.allocate(size, f"{name} keys")
        self.values = tensors.allocate(size, f"{name} values")
        scales = SCALE_BYTES * shape.heads * shape.tokens
        self.key_scales = tensors.allocate(scales, f"{name} key scales")
        self.value_scales = tensors.allocate(scales, f"{name} value scales")
        self._sizes = {self.keys: size, self.values: size, self.key_scales: scales, self.value_scales: scales}

    def use(self, memory: Memory) -> None:
        """Commands that follow belong to the image of ``memory``."""
        self._memory = memory

    def access(self, part: int, *, write: bool) -> Access:
        """What touching ``part`` (one of the four addresses) touches: all of it, for places are known at run time."""
        first = part - self._memory.ddr_base
        return Access(Space.DDR, ((first // DDR_GRANULE, -(-(first + self._sizes[part]) // DDR_GRANULE)),), write)

    def append_keys(self, codes: View, tokens: int) -> None:
        """STORE the keys of ``tokens`` tokens; pixel head * tokens + token of ``codes`` is a key of int8."""
        shape, tile, word = self.shape, self._config.cols, self._config.word_bytes
        # Word q of a pixel is at word q * plane, which is pixel q * plane * rows of the same view.
        words = {"n1": shape.words, "s1": tile * word, "d1": codes.plane * self._config.rows}
        if tokens == 1:
            heads = {"n2": shape.heads, "s2": shape.head_bytes, "d2": 1}
            self._append(self.keys, codes, 0, {"n0": word, "pix_bytes": word, **words, **heads}, Register.KEY_BYTES)
            return
        for head in range(shape.heads):
            inner = {"n2": tile, "s2": word, "d2": 1}
            outer = {"n3": tokens // tile, "s3": tile * shape.width, "d3": tile}
            loops = {"n0": word, "pix_bytes": word, **words, **inner, **outer}
            at = head * shape.head_bytes
            self._append(self.keys, codes, 0, loops, Register.KEY_BYTES, offset=at, pixel=head * tokens)

    def append_values(self, codes: View, tokens: int) -> None:
        """STORE the values of ``tokens`` tokens, in the order of `append_keys`."""
        shape, tile, word = self.shape, self._config.cols, self._config.word_bytes
        run = min(tokens, word)
        for byte in range(word):
            words = {"n1": shape.words, "s1": word // tile * self._tile_bytes, "d1": codes.plane * self._config.rows}
            blocks = {"n2": tokens // run, "s2": tile * word, "d2": run}
            heads = {"n3": shape.heads, "s3": shape.head_bytes, "d3": tokens}
            loops = {"n0": run, "pix_bytes": 1, **words, **blocks, **heads}
            at = byte // tile * self._tile_bytes + byte % tile * word
            self._append(self.values, codes, byte, loops, Register.VALUE_BYTES, offset=at)

    @property
    def _tile_bytes(self) -> int:
        """Bytes of an n tile of values of one head, all tokens."""
        return self.shape.tokens * self._config.cols

    def append_scales(self, part: int, records: View, tokens: int) -> None:
        """STORE lane 0 of ``records`` (fp32, pixel head * tokens + token) to ``part``, one of the two scale arrays."""
        heads = {"n1": self.shape.heads, "s1": SCALE_BYTES * self.shape.tokens, "d1": tokens}
        loops = {"n0": SCALE_BYTES * tokens, "pix_bytes": SCALE_BYTES, **heads}
        self._append(part, records, 0, loops, Register.POSITION, shift=2)

    def _append(
        self,
        part: int,
        view: View,
        channel: int,
        loops: dict[str, int],
        register: Register,
        *,
        offset: int = 0,
        pixel: int = 0,
        shift: int = 0,
    ) -> None:
        accesses = (view.access(self._config, write=False), self.access(part, write=True))
        self._memory.recorder.emit(
            "STORE",
            self._memory.label,
            accesses,
            ddr=part + offset,
            **loops,
            **view.fields("", pixel=pixel, channel=channel),
            patch0=patch("STORE", "ddr", register=register, shift=shift),
        )

    def stream_keys(self, head: int, tag: int) -> None:
        """WEIGHT: the tiles of a head's keys, those seen so far."""
        words = self.shape.words
        self._stream(
            self.keys + head * self.shape.head_bytes,
            self.keys,
            tag,
            entries=words,
            patch0=patch("WEIGHT", "outer", register=Register.KEY_TILES),
            step=words * self._config.cols * self._config.word_bytes,
        )

    def stream_values(self, head: int, tag: int) -> None:
        """WEIGHT: for each n tile of a head's values the blocks of tokens seen so far."""
        self._stream(
            self.values + head * self.shape.head_bytes,
            self.values,
            tag,
            entries=1,
            outer=self.shape.value_tiles,
            step=self._tile_bytes,
            patch0=patch("WEIGHT", "entries", register=Register.VALUE_WORDS),
        )

    def _stream(self, address: int, part: int, tag: int, **fields: int) -> None:
        access = self.access(part, write=False)
        self._memory.recorder.emit("WEIGHT", self._memory.label, (access,), ddr=address, tag=tag, **fields)
