"""Whole transcriptions, equal to openai/whisper's: tokens, times, log-probabilities, decisions."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import golden_cases as cases
import pytest

from whisper_npu.cache import sha256
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.decoding import Decoder
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.features import LogMel, log_mel
from whisper_npu.transcribe import Model, Transcription
from whisper_npu.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from whisper_npu.decoding import Hypothesis
    from whisper_npu.devices.device import Device
    from whisper_npu.options.decoding import DecodingOptions


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


class Golden:
    """One model, and what openai/whisper heard with it."""

    def __init__(self, name: str, folder: Path) -> None:
        content = json.loads(gzip.decompress((cases.DATA / f"golden_{name}.json.gz").read_bytes()))
        if content["weights"] != sha256(folder / "model.safetensors"):
            pytest.fail(f"the weights of {name} have changed: run scripts/make_goldens.py {name}")
        self.name = name
        self.results: dict[str, dict[str, Any]] = content["results"]
        checkpoint = Checkpoint(folder)
        self.model = Model(checkpoint, Remembering(open_cpu(checkpoint, precision="f32")))
        self._heard: dict[str, LogMel] = {}

    def _features(self, recording: str) -> LogMel:
        if recording not in self._heard:
            n_mels = self.model.checkpoint.dims.n_mels
            self._heard[recording] = log_mel([cases.samples_of(recording)], n_mels)
        return self._heard[recording]

    def transcribe(self, recording: str, choice: str) -> dict[str, Any]:
        """What our program hears, in the words of the golden file."""
        features = self._features(recording)
        options = cases.options(self.name, features.duration)[choice]
        attempts: list[list[float]] = []
        decoder = Decoder(self.model.device, self.model.tokenizer, self.model.decoder.n_ctx)

        def decode(encoded: Any, window: DecodingOptions, rng: np.random.Generator) -> Hypothesis:
            found = Decoder.decode(decoder, encoded, window, rng)
            attempts.append([round(window.temperature, 3), len(found.tokens)])
            return found

        with patch.object(self.model.decoder, "decode", decode):
            transcription = Transcription(self.model, features, options)
            found = [event for event in transcription if isinstance(event, Segment)]
        result = transcription.transcript(found)
        return {
            "language": result.language,
            "attempts": attempts,
            "segments": [_record(segment) for segment in found],
        }


def _record(segment: Segment) -> list[Any]:
    words = [[w.text, w.start, w.end, w.probability] for w in segment.words or ()]
    numbers = (
        segment.temperature,
        segment.avg_logprob,
        segment.no_speech_prob,
        segment.compression_ratio,
    )
    return [segment.seek, segment.start, segment.end, list(segment.tokens), *numbers, words]


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any], *, timed: bool) -> None:
    """Decisions and tokens are the same, numbers within 1e-3, word times within 0.02 s."""
    assert ours["attempts"] == theirs["attempts"]
    assert [s[3] for s in ours["segments"]] == [s[3] for s in theirs["segments"]]
    for mine, golden in zip(ours["segments"], theirs["segments"], strict=True):
        near = 0.021 if timed else 1e-3  # segments end where their words do
        assert mine[0] == pytest.approx(golden[0], abs=100 * near)
        assert mine[1:3] == pytest.approx(golden[1:3], abs=near)
        assert mine[4:8] == pytest.approx(golden[4:8], abs=1e-3)
        assert [w[0] for w in mine[-1]] == [w[0] for w in golden[-1]]
        for word, expected in zip(mine[-1], golden[-1], strict=True):
            assert word[1:3] == pytest.approx(expected[1:3], abs=0.021)
            assert word[3] == pytest.approx(expected[3], abs=1e-3)
    if any(segment[3] for segment in theirs["segments"]):
        assert ours["language"] == theirs["language"]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Golden]:
    """Name of a model -> its golden results."""

    @cache
    def get(name: str) -> Golden:
        return Golden(name, cases.model_folder(name, tmp_path_factory.mktemp("golden")))

    return get


@pytest.mark.parametrize("choice", cases.OPTIONS)
@pytest.mark.parametrize("name", cases.MADE)
def test_equal_to_openai_whisper(name: str, choice: str, golden: Callable[[str], Golden]) -> None:
    model = golden(name)
    compared = 0
    for recording, results in model.results.items():
        if choice in results and cases.is_here(recording):
            timed = cases.OPTIONS[choice].word_timestamps
            assert_equal(model.transcribe(recording, choice), results[choice], timed=timed)
            compared += 1
    assert compared or (name, choice) == ("random", "clipped")


def test_enough_option_sets() -> None:
    assert len(cases.OPTIONS) >= 12
