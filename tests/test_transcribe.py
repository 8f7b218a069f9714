"""The window loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import soundfile
from scripted import Blank, ScriptedDevice, Vocabulary, saying

from whisper_npu import listening, load_model
from whisper_npu.decoding import Decoder
from whisper_npu.errors import OptionError
from whisper_npu.events import Language, State, WindowDone
from whisper_npu.options import TranscribeOptions
from whisper_npu.options.speech import SpeechOptions
from whisper_npu.pieces import cut
from whisper_npu.speech import Voiced, clips
from whisper_npu.transcribe import Model, Transcription
from whisper_npu.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from scripted import Logits

    from whisper_npu.options.decoding import DecodingOptions

    Float = NDArray[np.float32]

BEGIN = 100


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


@pytest.mark.parametrize(
    ("tokens", "pieces", "advance"),
    [
        # two segments, and one begun: heard again from the end of the second
        (
            (at(0), 1, at(2), at(2), 2, at(5), at(5), 3),
            [(0, 2, (at(0), 1, at(2))), (2, 5, (at(2), 2, at(5)))],
            500,
        ),
        # the last one ends in silence: the window is done
        (
            (at(0), 1, at(2), at(2.5), 2, at(5)),
            [(0, 2, (at(0), 1, at(2))), (2.5, 5, (at(2.5), 2, at(5)))],
            2900,
        ),
        ((at(1), 1, at(2)), [(0, 2, (at(1), 1, at(2)))], 2900),
        ((at(0), 1), [(0, 29, (at(0), 1))], 2900),
        ((1, 2), [(0, 29, (1, 2))], 2900),
        ((), [(0, 29, ())], 2900),
    ],
)
def test_cut_where_two_timestamps_meet(
    tokens: tuple[int, ...],
    pieces: list[tuple[float, float, tuple[int, ...]]],
    advance: int,
) -> None:
    found = cut(tokens, BEGIN, 2900)
    rounded = [(round(start, 6), round(end, 6), piece) for start, end, piece in found.pieces]
    assert rounded == pieces
    assert found.advance == advance


def test_the_loop_never_stands_still() -> None:
    assert cut((at(0), at(0), 1), BEGIN, 2900).advance > 0


def test_what_is_wrong_with_a_recording_is_logged(
    tmp_path: Path, random_model: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.empty(0), 16000)
    load_model(random_model("micro.en"), device="cpu").open(path, TranscribeOptions())
    assert caplog.messages == [f"{path}: holds no samples"]


# the whole loop, on a scripted device

V = Vocabulary()


class Unchanging:
    """The files of a model without any."""

    def while_unchanged(self, work: Iterable[Any]) -> list[Any]:
        return [*work]


PLAIN = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None)


def model(*windows: Logits, vocabulary: Vocabulary = V) -> tuple[Model, list[DecodingOptions]]:
    """A model that says these things, window by window; and what it was asked."""
    device = ScriptedDevice(lambda i: windows[min(i, len(windows) - 1)])
    made: Any = object.__new__(Model)
    made.checkpoint = Unchanging()
    made.device, made.tokenizer = device, vocabulary
    made.decoder = Decoder(device, cast("Any", vocabulary), 448)
    asked: list[DecodingOptions] = []
    decode = made.decoder.decode

    def remembering(encoded: Any, options: DecodingOptions, rng: Any) -> Any:
        asked.append(options)
        return decode(encoded, options, rng)

    made.decoder.decode = remembering
    return made, asked


def hear(
    made: Model, seconds: float, options: TranscribeOptions = PLAIN, state: State | None = None
) -> tuple[list[Segment], list[WindowDone], list[Language]]:
    transcription = Transcription(made, Blank(round(seconds * 100)), options, state)
    events = list(transcription)
    return (
        [e for e in events if isinstance(e, Segment)],
        [e for e in events if isinstance(e, WindowDone)],
        [e for e in events if isinstance(e, Language)],
    )


ONE = saying(V, V.at(0), 1, V.at(2))
SILENCE = saying(V, V.at(0), 1, V.at(2), no_speech=0.99)


def test_windows_follow_each_other() -> None:
    made, _ = model(saying(V, V.at(0), 1, V.at(9), V.at(9), 2), ONE)
    segments, windows, _ = hear(made, 50)
    assert [(s.start, s.end, s.text) for s in segments] == [
        (0, 9, " a"), (9, 11, " a"), (39, 41, " a"),
    ]  # fmt: skip
    assert [w.seconds for w in windows] == [9, 39, 50]
    assert [s.id for s in segments] == [0, 1, 2]


def test_progress_does_not_stall_on_skipped_windows() -> None:
    """openai/whisper's bar is not moved when a window is skipped."""
    made, _ = model(SILENCE)
    quiet = replace(PLAIN, logprob_threshold=None)
    segments, windows, _ = hear(made, 95, quiet)
    assert segments == []
    assert [w.seconds for w in windows] == [30, 60, 90, 95]


def test_silence_is_believed_only_of_doubtful_text() -> None:
    made, _ = model(SILENCE)
    assert len(hear(made, 30)[0]) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.004])
def test_no_frame_no_text(seconds: float) -> None:
    made, asked = model(ONE)
    assert hear(made, seconds) == ([], [], [])
    assert asked == []


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("words", [False, True])
def test_less_than_a_tenth_of_a_second_is_heard(seconds: float, words: bool) -> None:
    """Others give nothing, or fail in the word times."""
    made, _ = model(ONE)
    segments, _, _ = hear(made, seconds, replace(PLAIN, word_timestamps=words))
    assert len(segments) == 1
    assert all(0 <= w.start <= w.end for w in segments[0].words or ())


def test_resumed_between_windows_nothing_changes() -> None:
    said = [saying(V, V.at(0), 1 + i % 3, V.at(5), V.at(5), 1) for i in range(12)]
    made, asked = model(*said)
    options = replace(PLAIN, initial_prompt="abc", hotwords="ca")
    whole, windows, _ = hear(made, 40, options)
    for i, window in enumerate(windows[:-1]):
        again, asked_again = model(*said[i + 1 :])
        rest, _, _ = hear(again, 40, options, window.state)
        assert whole[len(whole) - len(rest) :] == rest
        assert asked_again == asked[i + 1 :]


def test_prompts() -> None:
    made, asked = model(ONE)
    hear(made, 65, replace(PLAIN, initial_prompt="ab"))
    said = (V.at(0), 1, V.at(2))
    assert [options.prompt for options in asked] == [(1, 2), (1, 2, *said), (1, 2, *said * 2)]


def test_prompts_forget_where_asked_to() -> None:
    made, asked = model(ONE)
    options = replace(PLAIN, initial_prompt="ab", hotwords="c", condition_on_previous_text=False)
    hear(made, 65, options)
    assert [options.prompt for options in asked] == [(3, 1, 2), (3,), (3,)]


def test_a_prompt_is_carried_whatever_its_length() -> None:
    """openai/whisper's slice [-0:] drops nothing where there is no room left."""
    made, asked = model(ONE)
    options = replace(PLAIN, initial_prompt="abc" * 100, carry_initial_prompt=True)
    hear(made, 65, options)
    initial = (1, 2, 3) * 100
    assert [options.prompt for options in asked] == [initial[-223:]] * 3
    made, asked = model(ONE)
    hear(made, 35, replace(options, initial_prompt="a" * 221))
    assert asked[1].prompt == (*(1,) * 221, 1, V.at(2))


def test_temperatures_rise_until_the_text_is_good() -> None:
    doubtful = saying(V, *[V.at(0), *([1] * 60), V.at(2)])
    made, asked = model(doubtful)
    options = TranscribeOptions(temperature=(0.0, 0.2, 0.4), best_of=2)
    hear(made, 30, options)
    assert [o.temperature for o in asked] == [0.0, 0.2, 0.4]
    assert [(o.best_of, o.beam_size) for o in asked] == [(None, None), (2, None), (2, None)]


def test_clips() -> None:
    made, _ = model(ONE)
    segments, windows, _ = hear(made, 100, replace(PLAIN, clip_timestamps=(10, 20, 50)))
    assert [s.start for s in segments] == [10, 50, 80]
    assert [w.seconds for w in windows] == [20, 80, 100]
    with pytest.raises(OptionError, match="10 s"):
        hear(made, 10, replace(PLAIN, clip_timestamps=(10,)))


def test_a_timestamp_beyond_a_clip_does_not_shorten_the_next() -> None:
    made, _ = model(saying(V, V.at(0), 1, V.at(25), V.at(25), 2), ONE)
    segments, _, _ = hear(made, 100, replace(PLAIN, clip_timestamps=(10, 20, 21, 40)))
    assert [s.start for s in segments] == [10, 21]


# silence, and the end of the recording


class Speech(Blank):
    """Features with one second of speech at these seconds."""

    def __init__(self, seconds: float, *spoken: float) -> None:
        super().__init__(round(seconds * 100))
        self.n_mels = 80
        self.close = lambda: None
        self.probabilities = np.zeros(round(seconds / 0.032))
        for at in spoken:
            self.probabilities[round(at / 0.032) : round((at + 1) / 0.032)] = 0.9


def voiced(seconds: float, *spoken: float) -> Any:
    features = Speech(seconds, *spoken)
    return Voiced(cast("Any", features), features.probabilities.tolist(), SpeechOptions())


def test_silence_is_not_decoded_and_times_stay() -> None:
    made, asked = model(ONE)
    events = list(Transcription(made, voiced(130, 31, 50, 96), PLAIN))
    assert [e.start for e in events if isinstance(e, Segment)] == pytest.approx([30, 95], abs=0.04)
    done = [e.seconds for e in events if isinstance(e, WindowDone)]
    assert done == pytest.approx([30, 52, 82, 95, 98, 128, 130], abs=0.05)
    windows = cast("ScriptedDevice", made.device).windows
    assert [(start, size) for ((start, size),) in windows] == [
        (3000, 2201), (9500, 300),
    ]  # fmt: skip
    assert len(asked) == 2


def test_a_time_behind_what_was_heard_skips_no_speech() -> None:
    late = saying(V, V.at(0), 1, V.at(2), V.at(2), 2, V.at(29), V.at(29), 3)
    made, asked = model(late, ONE)
    events = list(Transcription(made, voiced(60, 1, 38), PLAIN))
    assert [e.text for e in events if isinstance(e, Segment)] == [" a", " b", " a"]
    assert len(asked) == 2


def test_the_language_is_not_asked_of_silence() -> None:
    made, asked = model(speaking("de", 0.01), vocabulary=SEVERAL)
    events = list(Transcription(made, voiced(60, 40), PLAIN))
    assert [e.code for e in events if isinstance(e, Language)] == ["de"]
    assert [options.language for options in asked] == ["de"]
    assert next(e.start for e in events if isinstance(e, Language)) == pytest.approx(39, abs=0.04)


@pytest.mark.parametrize("asked", [True, False])
def test_silence_is_skipped_where_that_is_asked(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf:
        probabilities = (0.0,) * 40

        def __init__(self, enough: float | None) -> None:
            assert enough == 0.5

        def pass_on(self, blocks: Any) -> Any:
            return blocks

    monkeypatch.setattr(listening, "Detector", Deaf)
    noise = np.full(16000, 0.1, np.float32)
    features = listening.hear([noise], 80, replace(PLAIN, skip_silence=asked))
    made, tried = model(ONE)
    list(Transcription(made, features, PLAIN))
    assert len(tried) == (0 if asked else 1)


def test_nothing_lasts_longer_than_the_recording() -> None:
    """A decoder goes on in the silence behind: openai/whisper gave 4 s of noise cues up to 28 s."""
    late = saying(
        V, V.at(0), 1, V.at(3), V.at(3), 2, V.at(6), V.at(6), 3, V.at(9), V.at(12), 1, V.at(20)
    )
    made, _ = model(late)
    for words in (False, True):
        segments, windows, _ = hear(made, 4.18, replace(PLAIN, word_timestamps=words))
        assert len(segments) == 2
        assert max(s.end for s in segments) <= 4.18
        assert all(w.start <= w.end <= 4.18 for s in segments for w in s.words or ())
        assert windows[-1].seconds == 4.18
    assert [s.text for s in hear(made, 4.18)[0]] == [" a", " b"]


def test_nothing_is_said_behind_the_end_of_a_clip() -> None:
    made, _ = model(saying(V, V.at(0), 1, V.at(12), V.at(12), 2, V.at(14)))
    segments, _, _ = hear(made, 60, replace(PLAIN, clip_timestamps=(10, 20)))
    assert [(s.start, s.end, s.text) for s in segments] == [(10, 20, " a")]


def test_words_beside_the_segments_change_nothing_else() -> None:
    said = [saying(V, V.at(0), 1 + i % 3, V.at(5), V.at(5), 1, 2, V.at(9)) for i in range(12)]
    plain = hear(model(*said)[0], 50)
    aligned = hear(model(*said)[0], 50, replace(PLAIN, align_words=True))
    assert [replace(s, aligned=None) for s in aligned[0]] == plain[0]
    assert aligned[2] == plain[2]
    words = [w for s in aligned[0] for w in s.aligned or ()]
    assert "".join(w.text for w in words) == "".join(s.text for s in plain[0])
    assert all(s.words is None for s in aligned[0])
    fitted = hear(model(*said)[0], 50, replace(PLAIN, align_words=True, word_timestamps=True))
    assert all(s.aligned is None for s in fitted[0])


# languages


def speaking(code: str, no_speech: float, *, sure: bool = True) -> Logits:
    """A window in a language, or of silence."""
    vocabulary = SEVERAL
    said = saying(vocabulary, vocabulary.at(0), 1, vocabulary.at(2), no_speech=no_speech)

    def logits(row: tuple[int, ...]) -> Float:
        found = said(row)
        if row[-1] == vocabulary.sot:
            found[vocabulary.language_tokens[code]] = 3
            found[vocabulary.no_speech] = 3 + np.log(no_speech / (1 - no_speech))
        elif not sure:
            found /= 20
        return found

    return logits


SEVERAL = Vocabulary(["en", "de", "fr"])


def test_the_language_is_that_of_the_first_speech() -> None:
    """openai/whisper takes the first 30 s, be they silent."""
    windows = [speaking("fr", 0.99, sure=False)] * 2  # heard with and without silence behind
    made, asked = model(*windows[:1], speaking("de", 0.01), vocabulary=SEVERAL)
    segments, _, languages = hear(made, 90)
    assert [(x.code, x.start) for x in languages] == [("de", 30)]
    assert languages[0].probability == pytest.approx(1, abs=1e-3)
    assert [o.language for o in asked] == ["fr", "de", "de"]
    assert all(s.language is None for s in segments)


def test_each_window_may_have_its_language() -> None:
    made, asked = model(
        speaking("de", 0.01), speaking("fr", 0.01), speaking("fr", 0.01), vocabulary=SEVERAL
    )
    segments, _, languages = hear(made, 90, replace(PLAIN, language="auto-each"))
    assert [(x.code, x.start) for x in languages] == [("de", 0), ("fr", 30)]
    assert [s.language for s in segments] == ["de", "fr", "fr"]
    assert [o.language for o in asked] == ["de", "fr", "fr"]


def test_a_language_that_is_given_is_taken() -> None:
    made, asked = model(speaking("de", 0.01), vocabulary=SEVERAL)
    assert hear(made, 30, replace(PLAIN, language="French"))[2] == []
    assert asked[0].language == "fr"


# options


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": 2.0},
        {"patience": 2.0, "beam_size": 1},
        {"patience": 0.1, "beam_size": 2},
        {"patience": float("nan"), "beam_size": 2},
        {"beam_size": 0},
        {"best_of": 0},
        {"sample_len": 0},
        {"vad_speech_pad_ms": -1},
        {"vad_min_silence_duration_ms": float("nan")},
        {"temperature": ()},
        {"temperature": (0.4, 0.2)},
        {"language": "klingon"},
        {"task": "sing"},
        {"carry_initial_prompt": True},
        {"hallucination_silence_threshold": 1.0},
        {"clip_timestamps": (3.0, 2.0)},
        {"clip_timestamps": (-1.0,)},
        {"clip_timestamps": (float("nan"),)},
        {"length_penalty": 2.0},
        {"seed": -1},
        {"vad_threshold": 2.0},
    ],
)
def test_contradictory_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        TranscribeOptions(**wrong)


def test_no_clips_are_the_whole_recording() -> None:
    assert clips(TranscribeOptions(clip_timestamps=()).clip_timestamps, 100) == [(0, 100)]


def test_fallback_temperatures() -> None:
    def temperatures(first: tuple[float, ...], step: float | None) -> tuple[float, ...]:
        options = TranscribeOptions(temperature=first, temperature_increment_on_fallback=step)
        return options.temperatures

    assert temperatures((0.0,), 0.2) == (0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0)
    for first in (0.0, 0.1, 0.5, 1.0):  # as openai/whisper makes them
        for step in (0.1, 0.2, 0.3, 2.0):
            assert temperatures((first,), step) == tuple(np.arange(first, 1 + 1e-6, step))
    assert temperatures((0.5,), None) == (0.5,)
    assert temperatures((1.5,), 0.2) == (1.5,)
    assert temperatures((0.0, 0.3, 1.2), 0.2) == (0.0, 0.3, 1.2)
    for increment in (0.0, -0.1, float("nan")):  # 0: openai/whisper divides by it
        with pytest.raises(OptionError):
            temperatures((0.0,), increment)


def test_beams_at_temperature_0_and_samples_above() -> None:
    options = TranscribeOptions(beam_size=3, patience=2.0, best_of=4)
    assert (options.at(0.0).beam_size, options.at(0.0).patience, options.at(0.0).best_of) == (
        3,
        2.0,
        None,
    )
    assert (options.at(0.2).beam_size, options.at(0.2).patience, options.at(0.2).best_of) == (
        None,
        None,
        4,
    )
    assert replace(PLAIN, beam_size=1).at(0.0) == PLAIN.at(0.0)  # greedy, exactly
