"""Word times: paths, words, punctuation, and the tiny windows that trip others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDevice, Vocabulary, saying

from whisper_npu.timing import (
    Span,
    Timing,
    align,
    drop_hallucinations,
    dtw,
    is_anomalous,
    median_filter,
    merge_punctuation,
    weights,
)
from whisper_npu.transcript import Segment, Word


def naive_dtw(cost: np.ndarray) -> tuple[list[int], list[int]]:
    """Cell by cell, as the textbooks and openai/whisper's tie rule have it."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf, np.float32)
    total[0, 0] = 0
    way = np.zeros((n + 1, m + 1), int)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            c0, c1, c2 = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            way[i, j] = 0 if c0 < c1 and c0 < c2 else 1 if c1 < c0 and c1 < c2 else 2
            total[i, j] = cost[i - 1, j - 1] + (c0, c1, c2)[way[i, j]]
    way[0, :], way[:, 0] = 2, 1
    i, j, path = n, m, []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        i, j = i - (way[i, j] != 2), j - (way[i, j] != 1)
    return [a for a, _ in path[::-1]], [b for _, b in path[::-1]]


@given(n=st.integers(1, 9), m=st.integers(1, 14), seed=st.integers(0, 10**6), ties=st.booleans())
@settings(max_examples=60, deadline=None)
def test_dtw_takes_the_path_of_the_naive_one(n: int, m: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    cost = (rng.integers(0, 3, (n, m)) if ties else rng.standard_normal((n, m))).astype(np.float32)
    rows, columns = dtw(cost)
    assert (rows.tolist(), columns.tolist()) == naive_dtw(cost)


def test_median_filter_mirrors_the_ends() -> None:
    x = np.array([[5, 1, 4, 2, 3, 9, 0, 7]], np.float32)
    padded = np.array([2, 4, 1, 5, 1, 4, 2, 3, 9, 0, 7, 0, 9, 3], np.float32)
    expected = [float(np.median(padded[i : i + 7])) for i in range(8)]
    assert median_filter(x, 7)[0].tolist() == expected
    assert median_filter(x[:, :3], 7).tolist() == x[:, :3].tolist()


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3])
def test_a_window_of_almost_nothing_has_finite_weights(n_frames: int) -> None:
    """openai/whisper has no columns below 2 frames, NaN below 4: words end before the window."""
    scores = np.random.default_rng(0).standard_normal((2, 5, 1500)).astype(np.float32)
    found = weights(scores, n_frames)
    assert found.shape == (5, 1)
    assert np.isfinite(found).all()


VOCABULARY = Vocabulary()


def words_of(n_frames: int, text: list[int]) -> list[Timing]:
    device = ScriptedDevice(lambda _: saying(VOCABULARY, VOCABULARY.no_timestamps, *text))
    return align(
        device,
        0,
        cast("Any", VOCABULARY),
        sot=(VOCABULARY.sot,),
        text=text,
        n_frames=n_frames,
        language=None,
    )


@pytest.mark.parametrize("n_frames", [0, 1, 3, 20, 3000])
def test_words_lie_in_the_window_in_order(n_frames: int) -> None:
    words = words_of(n_frames, [1, 2, 3])
    assert [word.text for word in words] == [" a", " b", " c"]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= max(n_frames / 100, 0.02)
    assert all(word.probability > 0.9 for word in words)


def test_words_follow_the_attention() -> None:
    """Each scripted token looks at its own sixth of the window, sot at the first."""
    words = words_of(3000, [1, 2, 3])
    assert [round(word.start) for word in words] == [0, 9, 14]


def test_no_words_no_alignment() -> None:
    assert words_of(3000, []) == []


def timings(*texts: str) -> list[Timing]:
    return [Timing(text, [i], float(i), i + 1.0, 1.0) for i, text in enumerate(texts)]


def test_punctuation_sticks_to_its_word() -> None:
    words = timings(' "', " one", ",", " two", ".", '"')
    merge_punctuation(words, "\"'“¿([{-", "\"'.。,!?:")
    assert [word.text for word in words] == ["", ' " one,', "", ' two."', "", ""]
    assert [word.tokens for word in words] == [[], [0, 1, 2], [], [3, 4, 5], [], []]


# hallucinations


def heard(start: float, end: float, probability: float = 0.9, n: int = 2) -> Segment:
    edges = np.linspace(start, end, n + 1)
    words = tuple(Word(" a", float(a), float(b), probability) for a, b in pairwise(edges))
    return Segment(0, 0, start, end, " a" * n, (1,) * n, 0, 0, 0, 0, words)


SPAN = Span(start=0.0, end=30.0, window_end=30.0, recording_end=100.0)


def test_anomalies() -> None:
    assert not is_anomalous(heard(0, 1))
    assert is_anomalous(heard(0, 1, probability=0.1))
    assert is_anomalous(heard(0, 0.05))
    assert is_anomalous(heard(0, 9))
    assert not is_anomalous(None)


def test_speech_is_kept() -> None:
    segments = [heard(1, 2), heard(10, 11)]
    assert drop_hallucinations(segments, SPAN, 2.0, 0.0) == (segments, None)


def test_a_hallucination_after_silence_is_heard_again() -> None:
    assert drop_hallucinations([heard(5, 6, 0.1)], SPAN, 2.0, 0.0) == (None, 5)


def test_a_hallucination_between_silences_ends_the_window() -> None:
    segments = [heard(1, 2), heard(15, 16, 0.1), heard(25, 26)]
    assert drop_hallucinations(segments, SPAN, 2.0, 0.0) == (segments[:1], 15)


def test_a_hallucination_beside_speech_is_kept() -> None:
    segments = [heard(1, 2), heard(2.5, 3.5, 0.1), heard(4, 5)]
    assert drop_hallucinations(segments, SPAN, 2.0, 0.0) == (segments, None)


def test_a_hallucination_at_the_end_ends_the_recording() -> None:
    span = Span(70.0, 100.0, 100.0, 100.0)
    segments = [heard(71, 72), heard(98, 99, 0.1)]
    assert drop_hallucinations(segments, span, 2.0, 70.0) == (segments[:1], 100)
