"""Where speech is, and how time is packed and unpacked."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu import speech
from whisper_npu.audio import open_audio
from whisper_npu.features import log_mel
from whisper_npu.options import TranscribeOptions
from whisper_npu.options.speech import SpeechOptions
from whisper_npu.speech import Detector, SpeechOnly, Voiced, spans, within
from whisper_npu.transcript import Segment, Word

if TYPE_CHECKING:
    from pathlib import Path

EXACT = SpeechOptions(min_silence=0.5, pad=0.0)


def chunks(*parts: tuple[float, float]) -> list[float]:
    """Probabilities: (probability, seconds) after each other."""
    return [p for p, seconds in parts for _ in range(round(seconds / 0.032))]


def seconds(found: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(a / 100, b / 100) for a, b in found]


def test_speech_between_pauses() -> None:
    heard = chunks((0, 3.2), (0.9, 1.6), (0.1, 0.32), (0.9, 1.6), (0, 3.2), (0.6, 0.64))
    found = seconds(list(spans(heard, 1056, EXACT)))
    assert found == [(3.2, 6.72), (9.92, 10.56)]


def test_a_doubtful_chunk_neither_begins_nor_ends_speech() -> None:
    doubtful = chunks((0.4, 3.2))
    assert list(spans(doubtful, 320, EXACT)) == []
    heard = chunks((0.9, 0.32), (0.4, 3.2), (0, 3.2))
    assert seconds(list(spans(heard, 672, EXACT))) == [(0, 3.52)]


def test_padding_joins_neighbours_and_stays_inside() -> None:
    heard = chunks((0.9, 0.96), (0, 0.64), (0.9, 0.96))
    padded = SpeechOptions(min_silence=0.5, pad=0.4)
    assert list(spans(heard, 256, padded)) == [(0, 256)]
    assert len(spans(heard, 256, EXACT)) == 2


def test_short_noises_are_no_speech() -> None:
    heard = chunks((0, 1.6), (0.9, 0.128), (0, 1.6))
    assert len(spans(heard, 332, EXACT)) == 1
    assert not spans(heard, 332, SpeechOptions(min_speech=0.25, min_silence=0.5))


def test_speech_within_clips() -> None:
    assert within([(10, 50), (80, 120)], [(0, 20), (40, 100)]) == [(10, 20), (40, 50), (80, 100)]


@pytest.fixture(scope="module")
def packed() -> SpeechOnly:
    noise = (np.random.default_rng(0).standard_normal(16000 * 70) / 10).astype(np.float32)
    return SpeechOnly(log_mel([noise], 80), [(100, 900), (1200, 1300), (3000, 6500)])


def test_windows_hold_the_frames_of_speech_alone(packed: SpeechOnly) -> None:
    assert packed.n_frames == 800 + 100 + 3500
    whole = packed._features.window
    window = packed.window(700)
    np.testing.assert_array_equal(window[:, :100], whole(800)[:, :100])
    np.testing.assert_array_equal(window[:, 100:200], whole(1200)[:, :100])
    np.testing.assert_array_equal(window[:, 200:], whole(3000)[:, :2800])
    last = packed.window(4300)
    np.testing.assert_array_equal(last[:, :100], whole(6400)[:, :100])
    assert (last[:, 100:] == 0).all()
    assert (packed.window(0, 50)[:, 50:] == 0).all()
    floor = packed.window(4300, silence=True)[:, 100:]
    assert (floor == floor[0, 0]).all()
    assert floor[0, 0] != 0


@given(start=st.floats(0, 43.9), length=st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_time_unpacks_in_order_and_into_speech(
    packed: SpeechOnly, start: float, length: float
) -> None:
    end = min(44.0, start + length)
    a, b = packed.seconds(start), packed.seconds(end, ending=True)
    assert b - a >= end - start - 0.002
    spoken = [(1, 9), (12, 13), (30, 65)]
    for moment in (a, b):
        assert any(first - 0.001 <= moment <= last + 0.001 for first, last in spoken)


def test_segments_are_put_where_they_were_said(packed: SpeechOnly) -> None:
    words = (Word(" a", 7.5, 8.0, 0.9), Word(" b", 8.0, 8.5, 0.9))
    segment = Segment(0, 700, 7.0, 9.0, " a b", (1, 2), 0, -0.1, 1, 0, words)
    found = packed.place(segment)
    assert (found.start, found.end, found.seek) == (8.0, 13.0, 800)
    assert [(w.start, w.end) for w in found.words or ()] == [(8.5, 9.0), (12.0, 12.5)]


def test_what_is_heard_of_a_window() -> None:
    """Long silence is left out at both ends, but for a second; in the middle it stays."""
    spoken = chunks((0, 6.4), (0.9, 1.6), (0, 6.4), (0.9, 1.6), (0, 4.0))
    heard = Voiced(log_mel([np.zeros(16000 * 20, np.float32)], 80), spoken, SpeechOptions())
    assert heard.part(0, 2000) == (540, 1700)
    assert heard.part(540, 1460) == (540, 1700)
    assert heard.part(700, 500) == (700, 900)
    assert heard.part(500, 400) == (500, 900)  # two seconds of silence are not long
    assert heard.part(0, 300) == (300, 300)
    assert heard.part(1700, 300) == (2000, 2000)


def test_speech_is_heard_from_where_it_is_doubtful() -> None:
    spoken = chunks((0, 6.4), (0.4, 0.96), (0.9, 1.6))
    heard = Voiced(log_mel([np.zeros(16000 * 9, np.float32)], 80), spoken, SpeechOptions())
    assert heard.part(0, 900) == (540, 900)


def test_nothing_is_said() -> None:
    silence = SpeechOnly(log_mel([np.zeros(16000, np.float32)], 80), [])
    assert silence.n_frames == 0
    assert silence.duration == 1


@pytest.mark.parametrize("loud", [1.0, 0.003])
def test_quiet_speech_is_speech_and_noise_is_not(shared: Path, loud: float) -> None:
    folder = shared / "data" / "public_samples"
    for name, spoken in (("jfk.flac", True), ("noise_pink_10s.wav", False)):
        detector = Detector()
        with open_audio(folder / name) as audio:
            list(detector.pass_on(loud * block for block in audio.blocks))
        assert (max(detector.probabilities) > 0.5) == spoken


class Silero:
    """A detector that hears chunks of ones; it remembers how many chunks it heard."""

    def __init__(self) -> None:
        self.heard = [0]

    def reset(self) -> None:
        self.heard.append(0)

    def process_samples(self, samples: list[float]) -> float:
        self.heard[-1] += 1
        return max(samples)


def test_the_detector_begins_anew_every_four_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    silero = Silero()
    monkeypatch.setattr(speech, "_silero", lambda: silero)
    quiet = np.zeros(16000 * 7, np.float32)
    list(Detector().pass_on([quiet[:1000], quiet[1000:]]))
    assert silero.heard == [0, 125, 94]


@pytest.mark.parametrize("enough", [None, 0.4])
def test_where_somebody_speaks_the_rest_of_four_seconds_counts_as_speech(
    monkeypatch: pytest.MonkeyPatch, enough: float | None
) -> None:
    silero = Silero()
    monkeypatch.setattr(speech, "_silero", lambda: silero)
    sound = np.zeros((300, 512), np.float32)
    sound[10] = sound[124] = 1.0  # amplified to 0.5
    detector = Detector(enough=enough)
    list(detector.pass_on([sound.reshape(-1)]))
    voiced = [i for i, probability in enumerate(detector.probabilities) if probability >= 0.4]
    assert voiced == ([10, 124] if enough is None else list(range(10, 125)))
    assert silero.heard == ([0, 125, 125, 50] if enough is None else [0, 11, 125, 50])


def test_opening_the_detector_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for before in (None, "3"):
        monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
        if before is not None:
            monkeypatch.setenv("OMP_THREAD_LIMIT", before)
        Detector()
        assert os.environ.get("OMP_THREAD_LIMIT") == before


def test_real_speech_with_a_pause(shared: Path) -> None:
    detector = Detector()
    with open_audio(shared / "data" / "public_samples" / "digits_45s_gap.flac") as audio:
        features = log_mel(detector.pass_on(audio.blocks), 80)
    found = spans(detector.probabilities, features.n_frames, TranscribeOptions().speech)
    gaps = [b[0] - a[1] for a, b in pairwise(found)]
    assert max(gaps) > 4300  # 45 s, less the padding
    assert sum(b - a for a, b in found) < 4200
