"""The tokenizer and the chat template of a GGUF file: byte-level BPE, built from the file's own vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from headrace_host.errors import ModelError
from headrace_host.models.gguf.metadata import Metadata

_CONTROL, _USER = 3, 4
"""Types of tokens: those that only templates write, and whole words that no merge makes."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    return Sequence([Digits(individual_digits=True), _gpt2()])


def _split(numbers: str) -> PreTokenizer:
    pattern = Regex(f"{_WORDS}|{numbers}|{_REST}")
    return Sequence([Split(pattern, "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


_PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "qwen2": lambda: _split(r"\p{N}"),
    "llama-bpe": lambda: _split(r"\p{N}{1,3}"),
}
"""How text is cut into words before merging, by tokenizer.ggml.pre."""


class GgufTokenizer:
    """Implements `headrace_host.models.language.Tokenizer`; built at first use.

    Every method raises `ModelError` when the file has no tokenizer of this kind, or a damaged one.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    @property
    def stop(self) -> frozenset[int]:
        ids = (self._special("eos"), self._special("eot"), self._special("eom"))
        return frozenset(i for i in ids if i is not None)

    def encode(self, text: str, *, control: bool = False, begin: bool = True) -> list[int]:
        self._bpe.encode_special_tokens = not control
        found: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return [*self._begin, *found] if begin else found

    def decode(self, tokens: list[int], *, control: bool = False) -> str:
        known = len(self._vocabulary)
        outside = [t for t in tokens if not 0 <= t < known]
        if outside:
            raise ModelError(f"token {outside[0]} does not exist; the vocabulary has {known}")
        text: str = self._bpe.decode(tokens, skip_special_tokens=not control)
        return text

    def chat(self, messages: list[dict[str, str]]) -> str:
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self._name("bos"),
                eos_token=self._name("eos"),
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise self._metadata.error(
                f"its chat template refuses these messages ({error}); begin with a user's, then alternate"
            ) from error

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.chat(messages)
        begin = self._name("bos")
        return self.encode(text, control=True, begin=not (begin and text.startswith(begin)))

    @cached_property
    def _vocabulary(self) -> list[str]:
        return self._metadata.strings("tokenizer.ggml.tokens")

    @cached_property
    def _begin(self) -> list[int]:
        """The token that begins a text, when the model wants one."""
        default = self._metadata.text("tokenizer.ggml.pre", "") == "llama-bpe"
        begin = self._special("bos") if self._metadata.flag("tokenizer.ggml.add_bos_token", default) else None
        return [] if begin is None else [begin]

    @cached_property
    def _bpe(self) -> tokenizers.Tokenizer:
        metadata = self._metadata
        kind = metadata.text("tokenizer.ggml.model")
        if kind != "gpt2":
            raise metadata.error(f"its tokenizer '{kind}' is not supported; use a model with byte-level BPE (gpt2)")
        cut = metadata.text("tokenizer.ggml.pre", "gpt-2")
        if cut not in _PRE_TOKENIZERS:
            known = ", ".join(_PRE_TOKENIZERS)
            raise metadata.error(f"its way '{cut}' of cutting text into words is not supported; these are: {known}")
        ids = {token: number for number, token in enumerate(self._vocabulary)}
        merges = [_pair(metadata, merge) for merge in metadata.strings("tokenizer.ggml.merges")]
        try:
            bpe = tokenizers.Tokenizer(BPE(ids, merges, ignore_merges=cut == "llama-bpe"))
        except Exception as error:  # the package raises nothing narrower
            raise metadata.error(f"its tokenizer is damaged ({error}); fetch or convert it again") from error
        bpe.pre_tokenizer = _PRE_TOKENIZERS[cut]()
        bpe.decoder = ByteDecoder()
        if cut == "qwen2":
            bpe.normalizer = NFC()
        self._add_whole_tokens(bpe)
        return bpe

    def _add_whole_tokens(self, bpe: tokenizers.Tokenizer) -> None:
        """Tokens that are found in the text before it is cut into words."""
        types = self._metadata.integers("tokenizer.ggml.token_type")
        if types and len(types) != len(self._vocabulary):
            raise self._metadata.error(f"{len(self._vocabulary)} tokens have {len(types)} types; the file is damaged")
        control = [t for t, kind in zip(self._vocabulary, types, strict=False) if kind == _CONTROL]
        words = [t for t, kind in zip(self._vocabulary, types, strict=False) if kind == _USER]
        bpe.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
        bpe.add_tokens([AddedToken(t, special=False, normalized=False) for t in words])

    @cached_property
    def _template(self) -> jinja2.Template:
        source = self._metadata.text("tokenizer.chat_template", "")
        if not source:
            raise self._metadata.error("has no chat template; give plain text, or use an instruction-tuned model")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": datetime.now().strftime}
        try:
            return environment.from_string(source)
        except jinja2.TemplateError as error:
            raise self._metadata.error(f"its chat template is damaged ({error}); convert it again") from error

    def _special(self, name: str) -> int | None:
        """Number of a special token; None when the file names none."""
        number = self._metadata.integer(f"tokenizer.ggml.{name}_token_id", -1)
        if number >= len(self._vocabulary):
            raise self._metadata.error(f"its {name} token {number} does not exist; the file is damaged")
        return number if number >= 0 else None

    def _name(self, name: str) -> str:
        number = self._special(name)
        return "" if number is None else self._vocabulary[number]


def _pair(metadata: Metadata, merge: str) -> tuple[str, str]:
    """The two tokens of a merge, which a space separates; the first begins with no separator."""
    middle = merge.find(" ", 1)
    if middle < 0:
        raise metadata.error(f"its tokenizer is damaged (merge '{merge}'); fetch or convert it again")
    return merge[:middle], merge[middle + 1 :]


def _refuse(message: Any) -> None:
    """What templates call for messages that they do not take."""
    raise jinja2.TemplateError(str(message))
