"""Whole transcriptions, equal to openai/whisper's: tokens, times, log-probabilities, files.

Small random models run everywhere. Real weights run where they are, on recordings beside the
project; by default a part of them, with `-m exhaustive` (or `scripts/score --goldens`) all.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import golden_cases as cases
import pytest
from real_models import real_model

from whisper_npu import transcribe
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.decoding import Decoder
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.features import LogMel, log_mel
from whisper_npu.options import SubtitleOptions
from whisper_npu.transcribe import Model, Transcription
from whisper_npu.transcript import Segment, Transcript, Word
from whisper_npu.writers import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from whisper_npu.decoding import Hypothesis
    from whisper_npu.devices.device import Device
    from whisper_npu.options.decoding import DecodingOptions

QUICK = {  # what real models hear by default
    "tiny.en": cases.SOME["tiny.en"][:8],
    "base": cases.SOME["base"][:2],
}


class Remembering:
    """A device that encodes the same window once: every option set hears the same recordings."""

    def __init__(self, device: Device) -> None:
        self.info = device.info
        self.session = device.session
        self.close = device.close
        self._encode = device.encode
        self._encoded: dict[bytes, Any] = {}

    def encode(self, mel: Any, *, observe: Any = None) -> Any:
        key = mel.tobytes()
        if key not in self._encoded:
            self._encoded[key] = self._encode(mel)
        return self._encoded[key]

    def forget(self) -> None:
        self._encoded.clear()


def content(name: str) -> dict[str, Any]:
    """The golden file of a model."""
    return json.loads(gzip.decompress((cases.DATA / f"golden_{name}.json.gz").read_bytes()))


class Golden:
    """One model, and what openai/whisper heard with it."""

    def __init__(self, name: str, folder: Path) -> None:
        golden, checkpoint = content(name), Checkpoint(folder)
        if golden["weights"] != cases.fingerprint(checkpoint):
            pytest.fail(f"the weights of {name} have changed: run scripts/make_goldens.py {name}")
        self.name = name
        self.results: dict[str, dict[str, Any]] = golden["results"]
        self._device = Remembering(open_cpu(checkpoint, precision="f32"))
        self.model = Model(checkpoint, self._device)
        self._recording = ""
        self._features: LogMel

    def hear(self, recording: str) -> None:
        """Take a recording."""
        self._device.forget()
        self._recording = recording
        n_mels = self.model.checkpoint.dims.n_mels
        self._features = log_mel([cases.samples_of(recording)], n_mels)

    def transcribe(self, choice: str) -> tuple[Transcript, list[list[float]]]:
        """What our program hears with one option set: also temperature and tokens of attempts."""
        options = cases.options(self.name, self._recording, self._features.duration)[choice]
        attempts: list[list[float]] = []
        decoder = Decoder(self.model.device, self.model.tokenizer, self.model.decoder.n_ctx)

        def decode(encoded: Any, window: DecodingOptions, rng: np.random.Generator) -> Hypothesis:
            found = Decoder.decode(decoder, encoded, window, rng)
            attempts.append([round(window.temperature, 3), len(found.tokens)])
            return found

        as_theirs = patch.multiple(  # what lies behind the end of the audio is kept
            transcribe, inside=lambda segments, end: segments, ended=lambda segment, end: segment
        )
        with patch.object(self.model.decoder, "decode", decode), as_theirs:
            transcription = Transcription(self.model, self._features, options)
            found = [event for event in transcription if isinstance(event, Segment)]
        return transcription.transcript(found), attempts


def assert_equal(ours: Segment, theirs: list[Any], *, timed: bool) -> None:
    """Tokens are the same, numbers within 1e-3, word times within 0.02 s."""
    near = 0.021 if timed else 1e-6  # segments end where their words do
    seek, start, end, tokens, temperature, *numbers, words = theirs
    assert list(ours.tokens) == tokens
    assert ours.seek == pytest.approx(seek, abs=100 * near)
    assert (ours.start, ours.end) == pytest.approx((start, end), abs=near)
    assert ours.temperature == temperature
    found = (ours.avg_logprob, ours.no_speech_prob, ours.compression_ratio)
    assert found == pytest.approx(numbers, abs=1e-3)
    assert [word.text for word in ours.words or ()] == [word[0] for word in words]
    for word, (_, start, end, probability) in zip(ours.words or (), words, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end), abs=0.021)
        assert word.probability == pytest.approx(probability, abs=1e-3)


def with_numbers(ours: Segment, theirs: list[Any]) -> Segment:
    """The same segment with the numbers that may differ a little taken from the golden file."""
    words = None if ours.words is None else tuple(Word(*word) for word in theirs[-1])
    segment = replace(ours, avg_logprob=theirs[5], no_speech_prob=theirs[6], words=words)
    if words is None:
        return segment
    return replace(segment, seek=theirs[0], start=theirs[1], end=theirs[2])


def assert_files(ours: Transcript, theirs: dict[str, str]) -> None:
    """Byte for byte, but for what we leave out on purpose: cues without text."""
    formats = ["json"] if any(not s.text for s in ours.segments) else cases.WRITTEN_FORMATS
    for name in formats:
        text = FORMATS[name](ours, SubtitleOptions())
        assert hashlib.sha256(text.encode()).hexdigest()[:12] == theirs[name], (name, text)


def recordings() -> list[Any]:
    """(model, recording), marked where it takes long."""
    found = []
    for name in cases.MADE:
        for recording in content(name)["results"]:
            quick = name in cases.RANDOM or recording in QUICK[name]
            marks = () if quick else pytest.mark.exhaustive
            found.append(pytest.param(name, recording, marks=marks))
    return found


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Golden]:
    """Name of a model -> its golden results."""

    @cache
    def get(name: str) -> Golden:
        if name in cases.REAL:
            return Golden(name, real_model(name))
        scratch = tmp_path_factory.mktemp("golden")
        return Golden(name, cases.lively(scratch / name, *cases.RANDOM[name]))

    return get


@pytest.mark.parametrize(("name", "recording"), recordings())
def test_equal_to_openai_whisper(
    name: str, recording: str, golden: Callable[[str], Golden]
) -> None:
    if not cases.is_here(recording):
        pytest.skip("the recordings in ../shared/data are not here")
    model = golden(name)
    model.hear(recording)
    for choice, theirs in model.results[recording].items():
        ours, attempts = model.transcribe(choice)
        assert attempts == theirs["attempts"], choice
        timed = cases.OPTIONS[choice].word_timestamps
        for mine, golden_segment in zip(ours.segments, theirs["segments"], strict=True):
            assert_equal(mine, golden_segment, timed=timed)
        if not ours.segments:
            continue  # the language of silence: openai/whisper guesses one
        assert ours.language == theirs["language"]
        pairs = zip(ours.segments, theirs["segments"], strict=True)
        assert_files(
            replace(ours, segments=tuple(with_numbers(*pair) for pair in pairs)), theirs["files"]
        )


def test_enough_option_sets() -> None:
    assert len(cases.OPTIONS) >= 14
