"""Error rates by hand-counted examples, and alignments that give both texts back."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.comparison.accuracy import Chunk, Errors, difference, normaliser
from whisper_npu.errors import OptionError


def test_counts_and_chunks() -> None:
    found = difference("The cat sat on.", "the bat, sat sat on mat", "en")
    assert found.words == Errors(hits=3, substitutions=1, deletions=0, insertions=2)
    assert found.rate == 1.0 * 3 / 4
    assert found.chunks == (
        Chunk(same=True, reference="the", hypothesis="the"),
        Chunk(same=False, reference="cat", hypothesis="bat"),
        Chunk(same=True, reference="sat", hypothesis="sat"),
        Chunk(same=False, reference="", hypothesis="sat"),
        Chunk(same=True, reference="on", hypothesis="on"),
        Chunk(same=False, reference="", hypothesis="mat"),
    )
    assert found.characters == Errors(hits=13, substitutions=1, deletions=0, insertions=8)


def test_spelling_and_numbers_are_no_errors_in_english() -> None:
    assert difference("Mr. Brown, colour twenty-one", "mister brown color 21", "en").rate == 0
    assert difference("it's twenty-one", "It is 21!", "en").rate == 0


def test_spelt_digits_are_words_of_their_own() -> None:
    found = difference("three one four one five nine", "three one four five nine", "en")
    assert found.words == Errors(hits=5, deletions=1)
    assert difference("three one four", "314", "en").rate == 0
    assert difference("twenty-one", "twenty one", "en").rate == 0


@pytest.mark.parametrize("language", ["zh", "ja", "th", "lo", "my", "yue"])
def test_languages_without_spaces_are_counted_by_character(language: str) -> None:
    found = difference("我爱你们", "我 爱你。", language)
    assert found.words == found.characters == Errors(hits=3, deletions=1)
    assert found.chunks[-1] == Chunk(same=False, reference="们", hypothesis="")
    assert found.chunks[0].reference == "我爱你"


def test_silence() -> None:
    assert difference("", "", "en").rate == 0
    assert difference("", " . ", "de").rate == 0
    assert difference("", "thanks for watching", "en").words == Errors(insertions=3)
    assert difference("hello there", "", "en").rate == 1


def test_errors_of_recordings_add_up() -> None:
    assert (Errors(1, 2, 3, 4) + Errors(10, 20, 30, 40)) == Errors(11, 22, 33, 44)
    assert Errors(insertions=5).rate == 5


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["en", "de", "zh"]))
@settings(max_examples=60, deadline=None)
def test_chunks_hold_both_texts(reference: str, hypothesis: str, language: str) -> None:
    found = difference(reference, hypothesis, language)
    for text, heard in (
        (reference, [chunk.reference for chunk in found.chunks]),
        (hypothesis, [chunk.hypothesis for chunk in found.chunks]),
    ):
        spelt = not any(letter.isdigit() for letter in reference + hypothesis)
        normalised = normaliser(language, spelt=spelt)(text)
        assert "".join(heard).replace(" ", "") == normalised.replace(" ", "")
    assert all((chunk.reference == chunk.hypothesis) == chunk.same for chunk in found.chunks)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(OptionError, match=r"pip install 'whisper-npu\[compare\]'"):
        difference("a", "b", "en")
