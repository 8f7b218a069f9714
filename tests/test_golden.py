"""Whole transcriptions, equal to openai/whisper's: tokens, times, log-probabilities, decisions."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import golden_cases as cases
import pytest

from whisper_npu.cache import sha256
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.cpu import CpuDevice
from whisper_npu.transcribe import Model

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.options import TranscribeOptions
    from whisper_npu.transcript import Segment


class Remembering(CpuDevice):
    """Encodes the same window once: every option set hears the same recordings."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._encoded: dict[bytes, Any] = {}

    def encode(self, mel: Any) -> Any:
        key = mel.tobytes()
        if key not in self._encoded:
            self._encoded[key] = super().encode(mel)
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
        self.model = Model(checkpoint, Remembering(checkpoint))

    def check(self, recording: str, choice: str) -> None:
        samples = cases.samples_of(recording)
        options = cases.options(self.name, len(samples) / 16000)[choice]
        attempts, language, segments = self._transcribe(samples, options)
        expected = self.results[recording][choice]
        assert attempts == expected["attempts"]
        assert [_times(s) for s in segments] == [
            _Near(seek, start, end) for seek, start, end, *_ in expected["segments"]
        ]
        for segment, (_, _, _, tokens, *numbers, words) in zip(
            segments, expected["segments"], strict=True
        ):
            assert list(segment.tokens) == tokens
            ours = (
                segment.temperature,
                segment.avg_logprob,
                segment.no_speech_prob,
                segment.compression_ratio,
            )
            assert ours == pytest.approx(numbers, abs=1e-3)
            _check_words(segment, words)
        if segments:
            assert language == expected["language"]
