"""Text to tokens and back; words are cut as each kind of model expects; templates are rendered, not trusted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from headrace_host.errors import ModelError
from headrace_host.models.gguf.importer import load_gguf
from headrace_host.models.language import Tokenizer

SEED = 30
TEXTS = ("", " ", "the 1234", "  two  spaces\n\nlines\t", "it's THE'S", "naïve Ω 漢字 🙂", "<|end|> is text", "\r\n")


def tokenizer(folder: Path, files: ModuleType, **changed: Any) -> Tokenizer:
    changed = {f"tokenizer.{key.replace('ggml_', 'ggml.')}": value for key, value in changed.items()}
    return load_gguf(files.small(folder, changed=changed)).tokenizer


def words(found: Tokenizer, text: str) -> list[str]:
    return [found.decode([token]) for token in found.encode(text)]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_round_trip(tmp_path: Path, files: ModuleType, pre: str) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    found = tokenizer(tmp_path, files, ggml_pre=pre)
    points = [*range(9, 14), *range(32, 127), 0xA0, 0xE9, 0x3A9, 0x660, 0x4E2D, 0x1F642]
    random = ["".join(chr(p) for p in rng.choice(points, 40)) for _ in range(20)]
    for text in (*TEXTS, *random):
        tokens = found.encode(text, begin=False)
        assert found.decode(tokens) == text
        assert not {files.BEGIN, files.END, files.SAY} & set(tokens)


def test_words(tmp_path: Path, files: ModuleType) -> None:
    """The vocabulary has tokens "12", "the" and " the"."""
    assert words(tokenizer(tmp_path, files, ggml_pre="gpt-2"), "the the 312") == ["the", " the", " ", "3", "12"]
    assert words(tokenizer(tmp_path, files, ggml_pre="smollm"), "the 312") == ["the", " ", "3", "1", "2"]
    assert words(tokenizer(tmp_path, files, ggml_pre="qwen2"), "the 312") == ["the", " ", "3", "1", "2"]
    llama = tokenizer(tmp_path, files, ggml_pre="llama-bpe", ggml_add_bos_token=False)
    assert words(llama, "the 333312") == ["the", " ", *"3333", "12"]
    assert words(llama, "3312") == [*"331", "2"]


def test_first_token(tmp_path: Path, files: ModuleType) -> None:
    assert tokenizer(tmp_path, files).encode("the")[0] != files.BEGIN
    for found in (
        tokenizer(tmp_path, files, ggml_add_bos_token=True),
        tokenizer(tmp_path, files, ggml_pre="llama-bpe"),
    ):
        assert found.encode("the")[0] == files.BEGIN and files.BEGIN not in found.encode("the", begin=False)


def test_control_tokens(tmp_path: Path, files: ModuleType) -> None:
    found = tokenizer(tmp_path, files, ggml_eot_token_id=files.SAY)
    assert found.stop == {files.END, files.SAY}
    tokens = found.encode("the<|end|>the", control=True)
    the = files.VOCABULARY.index("the")
    assert tokens == [the, files.END, the]
    assert found.decode(tokens) == "thethe" and found.decode(tokens, control=True) == "the<|end|>the"
    assert files.END not in found.encode("the<|end|>the")
    with pytest.raises(ModelError, match="token 999 does not exist"):
        found.decode([999])


def test_chat(tmp_path: Path, files: ModuleType) -> None:
    found = tokenizer(tmp_path, files, ggml_add_bos_token=True)
    messages = [{"role": "user", "content": "the"}]
    assert found.chat(messages) == "<|begin|><|say|>user: the<|end|><|say|>"
    tokens = found.encode_chat(messages)
    assert tokens.count(files.BEGIN) == 1 and tokens[-2:] == [files.END, files.SAY]
    with pytest.raises(ModelError, match="no tools"):
        found.chat([{"role": "tool", "content": ""}])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"chat_template": None}, "no chat template"),
        ({"chat_template": "{% for %}"}, "damaged"),
        ({"chat_template": "{{ ''.__class__.__mro__ }}"}, "refuses"),
        ({"chat_template": "{{ messages[0].role / 0 }}"}, "refuses"),
        ({"ggml_bos_token_id": 5000}, "bos token 5000 does not exist"),
    ],
)
def test_bad_templates(tmp_path: Path, files: ModuleType, changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        tokenizer(tmp_path, files, **changed).chat([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"ggml_model": "llama"}, "tokenizer 'llama' is not supported"),
        ({"ggml_pre": "viking"}, "'viking' of cutting text"),
        ({"ggml_merges": ["ab"]}, "merge 'ab'"),
        ({"ggml_merges": ["zz qq"]}, "damaged"),
        ({"ggml_token_type": [1, 2]}, "have 2 types"),
        ({"ggml_tokens": None}, "'tokenizer.ggml.tokens' is missing"),
    ],
)
def test_bad_tokenizers(tmp_path: Path, files: ModuleType, changed: dict[str, Any], text: str) -> None:
    found = tokenizer(tmp_path, files, **changed)  # the model itself is usable
    with pytest.raises(ModelError, match=text):
        found.encode("the")
