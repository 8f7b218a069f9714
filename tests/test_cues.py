"""Cues keep their bounds and lose no word, whatever was said and when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.cues import Cue, CueLimits, columns, lay_out, unlimited
from whisper_npu.transcript import Word

BROADCAST = CueLimits()
MS = 0.0011  # times are written in milliseconds


@st.composite
def speech(draw: st.DrawFn) -> tuple[list[Word], float]:
    """Words in order, slow or much too quick, with and without pauses; and where all ends."""
    texts = st.from_regex(r" ?[a-zäß語]{1,14}[.,!?]?", fullmatch=True)
    times = st.floats(0, 3) | st.just(0.0)
    at, words = 0.0, []
    for text in draw(st.lists(texts, min_size=1, max_size=60)):
        at += draw(times)
        length = draw(times)
        words.append(Word(text, at, at + length, 1.0))
        at += length
    return words, max(0.1, at + draw(times))


def said(found: list[Cue]) -> str:
    return "".join("".join(text.split()) for _, _, text in found)


@given(speech())
@settings(deadline=None, max_examples=300)
def test_bounds(spoken: tuple[list[Word], float]) -> None:
    words, end = spoken
    found = lay_out(words, BROADCAST, end)
    assert said(found) == "".join(word.text.strip() for word in words)
    crowded = len(found) * 0.88 > end  # more cues than could be shown one after another
    for start, stop, text in found:
        assert -MS <= start < stop <= end + MS
        assert stop - start <= 7 + MS
        assert crowded or stop - start >= 0.8 - MS
        lines = text.split("\n")
        assert len(lines) <= 2
        assert all(columns(line) <= 42 or " " not in line for line in lines)
    for one, other in pairwise(found):
        assert other[0] - one[1] >= (0 if crowded else 0.08) - MS


@given(speech())
@settings(deadline=None)
def test_slow_speech_is_never_early_and_never_late(spoken: tuple[list[Word], float]) -> None:
    words, end = spoken
    calm = [
        Word(word.text, word.start + 2 * i, word.end + 2 * i, 1) for i, word in enumerate(words)
    ]
    found = lay_out(calm, BROADCAST, end + 2 * len(words))
    starts = {round(word.start, 3) for word in calm}
    assert {start for start, _, _ in found} <= starts
    assert all(columns(text) / (stop - start) <= 20.1 for start, stop, text in found)


@given(speech(), st.floats(1, 20))
@settings(deadline=None)
def test_only_a_duration_is_asked_for(spoken: tuple[list[Word], float], longest: float) -> None:
    words, end = spoken
    found = lay_out(words, unlimited(longest), end)
    assert said(found) == "".join(word.text.strip() for word in words)
    assert all(0 <= stop - start <= longest + MS for start, stop, _ in found)
    assert all(one[1] <= other[0] + MS for one, other in pairwise(found))
    assert "\n" not in "".join(text for _, _, text in found)


def evenly(text: str, rate: float = 15.0) -> list[Word]:
    """Words as fast as so many characters a second; a # is a pause of a second."""
    words, at = [], 0.0
    for part in text.split(" "):
        word, seconds = part.strip("#"), len(part) / rate
        words.append(Word(f" {word}", at, at + seconds, 1.0))
        at += seconds + (1.0 if part.endswith("#") else 0.0)
    return words


def texts(text: str, limits: CueLimits = BROADCAST) -> list[str]:
    words = evenly(text)
    return [shown for _, _, shown in lay_out(words, limits, words[-1].end + 1)]


def test_cues_end_with_sentences() -> None:
    first = "It was the best of times, it was the worst of times."
    second = "Nobody knew what to say about that."
    assert [" ".join(t.split()) for t in texts(f"{first} {second}")] == [first, second]


def test_short_sentences_share_a_cue() -> None:
    assert texts("Yes. I do. We all know what is to be done.") == [
        "Yes. I do. We all know what is to be done."
    ]


def test_long_sentences_break_at_commas_and_pauses() -> None:
    long = (
        "When in the course of human events it becomes necessary for one people, "
        "having thought about it for a very long time, to say so"
    )
    assert texts(long)[0].endswith("people,")
    paused = "and then he went to the door of the house# and there was nobody to be seen"
    assert [" ".join(t.split()) for t in texts(paused)] == [
        "and then he went to the door of the house",
        "and there was nobody to be seen",
    ]


def test_lines_are_of_much_the_same_width() -> None:
    (cue,) = texts("a line that is too long by one word for the width of forty")
    first, second = cue.split("\n")
    assert abs(len(first) - len(second)) < 10


def test_a_wide_character_takes_two_columns() -> None:
    words = [Word("語", i / 5, (i + 1) / 5, 1.0) for i in range(50)]
    found = lay_out(words, BROADCAST, 10)
    assert max(len(line) for _, _, text in found for line in text.split("\n")) <= 21
    assert columns("e\u0301") == 1


@pytest.mark.parametrize(
    "text",
    ["он сказал: нет.", "それは本当です。", "¿Qué hora es? Son las dos."],
)
def test_a_text_that_fits_is_one_cue(text: str) -> None:
    assert texts(text) == [text]
