"""References from a text, a folder, a list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from whisper_npu.comparison.references import references
from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_text_for_one_recording(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("hello\n", "utf-8")
    assert references(tmp_path / "said.txt", ["a.wav"]) == {"a.wav": "hello\n"}
    with pytest.raises(OptionError, match="use a folder"):
        references(tmp_path / "said.txt", ["a.wav", "b.wav"])


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello", "utf-8")
    assert references(tmp_path, ["x/a.wav", "b.wav"]) == {"x/a.wav": "hello"}
    with pytest.raises(OptionError, match="no text for any"):
        references(tmp_path, ["b.wav"])


@pytest.mark.parametrize("key", ["file", "audio"])
def test_a_list(tmp_path: Path, key: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({key: "y/a.wav", "text": "hé"}) + "\n\n", "utf-8")
    assert references(path, ["x/a.wav", "b.wav"]) == {"x/a.wav": "hé"}


def test_a_list_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('[\n{"file": "a.wav",\n"text": "hello"}]', "utf-8")
    assert references(path, ["x/a.wav"]) == {"x/a.wav": "hello"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"file": "a.wav"}', b"{}", b"\xff\xfe", b"3"])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.jsonl"
    path.write_bytes(content)
    with pytest.raises(OptionError, match="cannot be read"):
        references(path, ["a.wav"])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        references(tmp_path / "none.txt", ["a.wav"])
