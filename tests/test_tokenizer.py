"""Vocabularies, special tokens and language names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.errors import OptionError
from whisper_npu.languages import LANGUAGES, OWN_NAMES, language_code
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@lru_cache
def open_tokenizer(folder: Path) -> Tokenizer:
    """Opened once: reading a vocabulary takes a tenth of a second."""
    return Tokenizer(Checkpoint(folder))


@pytest.mark.parametrize(
    ("name", "code"), [("fr", "fr"), ("French", "fr"), ("flemish", "nl"), (" YUE ", "yue")]
)
def test_language_names(name: str, code: str) -> None:
    assert language_code(name) == code


def test_an_unknown_language_is_a_usage_error() -> None:
    with pytest.raises(OptionError, match="klingon"):
        language_code("klingon")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("deutsch", "de (German)"), ("germn", "de (German)"), ("Francais", "fr (French)"),
     ("espanol", "es (Spanish)"), ("日本語", "ja (Japanese)"), ("en-US", "en (English)"),
     ("pt_BR", "pt (Portuguese)"), ("hatian creole", "ht (Haitian Creole)")],
)  # fmt: skip
def test_a_language_that_was_meant_is_suggested(typed: str, meant: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"did you mean {meant}?")):
        language_code(typed)


def test_own_names_of_languages_are_codes() -> None:
    assert set(OWN_NAMES.values()) <= LANGUAGES.keys()
    assert not OWN_NAMES.keys() & (LANGUAGES.keys() | set(LANGUAGES.values()))


@pytest.mark.parametrize(
    ("name", "first", "languages"),
    [("micro", 50257, 99), ("micro.en", 50256, 99), ("v3", 50257, 100)],
)
def test_special_tokens_of_the_published_vocabularies(
    name: str, first: int, languages: int, random_model: Callable[[str], Path]
) -> None:
    tokenizer = open_tokenizer(random_model(name))
    assert (tokenizer.eot, tokenizer.sot) == (first, first + 1)
    assert len(tokenizer.language_tokens) == languages
    assert tokenizer.no_timestamps == first + 7 + languages
    assert tokenizer.timestamp(tokenizer.timestamp_begin + 1500) == 30
    assert len(tokenizer.non_speech) == (84 if name == "micro.en" else 82)
    assert tokenizer.blank == (220, first)


@given(text=st.text())
def test_text_survives(text: str, random_model: Callable[[str], Path]) -> None:
    tokenizer = open_tokenizer(random_model("micro"))
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(token < tokenizer.eot for token in tokens)


def test_special_tokens_are_never_made_from_text(random_model: Callable[[str], Path]) -> None:
    tokenizer = open_tokenizer(random_model("micro"))
    assert all(token < tokenizer.eot for token in tokenizer.encode("<|endoftext|><|en|>"))
    assert tokenizer.decode([tokenizer.sot, 440, tokenizer.timestamp_begin]) == " The"


def test_a_language_the_model_does_not_know(random_model: Callable[[str], Path]) -> None:
    tokenizer = open_tokenizer(random_model("micro"))
    assert tokenizer.sot_sequence("fr", "translate") == (50258, 50265, 50358)
    with pytest.raises(OptionError, match="yue"):
        tokenizer.sot_sequence("yue", "transcribe")


@given(data=st.data())
def test_any_tokens_read_as_the_library_reads_them(
    data: st.DataObject, random_model: Callable[[str], Path]
) -> None:
    """Also tokens that are a part of a character."""
    tokenizer = open_tokenizer(random_model("micro"))
    tokens = data.draw(st.lists(st.integers(0, tokenizer.eot - 1), max_size=20))
    assert tokenizer.decode(tokens) == tokenizer._join(tokens)


def test_a_second_start_does_not_read_the_vocabulary(
    random_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    first = Tokenizer(Checkpoint(random_model("micro")))
    second = Tokenizer(Checkpoint(random_model("micro")))
    assert "_bpe" in vars(first)
    assert second.suppressed((-1,)) == first.suppressed((-1,))
    assert second.decode(range(second.eot)) == first.decode(range(first.eot))
    assert second.mark(second.sot) == "<|startoftranscript|>"
    assert "_bpe" not in vars(second)
    (kept,) = (tmp_path / "vocabularies").iterdir()
    content = kept.read_bytes()
    at = content.index(b'" hello"')
    kept.write_bytes(content[: at + 2] + b"j" + content[at + 3 :])  # " jello" is no damage to JSON
    third = Tokenizer(Checkpoint(random_model("micro")))
    assert third.decode(range(third.eot)) == first.decode(range(first.eot))
    assert kept.read_bytes() == content
