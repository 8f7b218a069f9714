#!/usr/bin/env python3
"""Golden results of whole transcriptions, from openai/whisper (`pip install openai-whisper`).

scripts/make_goldens.py            tests/data/golden_<model>.json.gz for every model
scripts/make_goldens.py demo       for the demo model only, after its weights have changed

What the tests compare is defined in tests/golden_cases.py. openai/whisper runs as it is but for
its random numbers, which come from our sampler, for text, in which special tokens do not count,
and for its features, which are ours: they are compared by themselves in test_features.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import whisper
import whisper.decoding
import whisper.transcribe
import whisper.utils

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]

import golden_cases as cases  # noqa: E402
from openai_model import openai_model  # noqa: E402

from whisper_npu.cache import sha256  # noqa: E402
from whisper_npu.checkpoint import Checkpoint  # noqa: E402
from whisper_npu.decoding import sample  # noqa: E402
from whisper_npu.features import log_mel  # noqa: E402
from whisper_npu.tokenizer import Tokenizer  # noqa: E402
from whisper_npu.writers import FORMATS  # noqa: E402

if TYPE_CHECKING:
    from whisper_npu.options import TranscribeOptions


class Encoding:
    """One of our tokenizers as openai/whisper expects tiktoken's."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        bpe = self._bpe = tokenizer._bpe  # noqa: SLF001  the library behind ours
        self._text = tokenizer
        vocabulary = {token: bpe.id_to_token(token) for token in range(bpe.get_vocab_size())}
        self._ids = {
            text.replace("nocaptions", "nospeech"): token
            for token, text in vocabulary.items()
            if token >= tokenizer.eot
        }
        self.special_tokens_set = set(self._ids)
        self.eot_token = tokenizer.eot

    def encode_single_token(self, text: str) -> int:
        return self._ids[text]

    def encode(self, text: str, **_: Any) -> list[int]:
        return self._text.encode(text)

    def decode(self, tokens: list[int], **_: Any) -> str:
        """Text, with a mark for the end, where openai/whisper cuts words; or a language's name."""
        if len(tokens) == 1 and tokens[0] > self.eot_token:
            return str(self._bpe.id_to_token(tokens[0]))
        end = "<|endoftext|>" if tokens and tokens[-1] == self.eot_token else ""
        return self._text.decode(tokens) + end


class Reference:
    """One of our model folders in openai/whisper."""

    def __init__(self, folder: Path) -> None:
        self.model = openai_model(folder)
        self.tokenizer = Tokenizer(Checkpoint(folder))
        self.attempts: list[list[float]] = []
        self._seed = 0
        self._last: tuple[Any, ...] = ()
        self._rng = np.random.default_rng()
        self._encoded: dict[bytes, torch.Tensor] = {}
        self._patch()

    def _patch(self) -> None:
        model, encoding = self.model, Encoding(self.tokenizer)

        @cache
        def get_tokenizer(multilingual: bool, **choice: Any) -> Any:  # noqa: FBT001  as there
            choice["num_languages"] = len(self.tokenizer.language_tokens)
            if not multilingual:
                choice |= {"language": None, "task": None}
            else:
                choice["language"] = choice.get("language") or "en"
                choice["task"] = choice.get("task") or "transcribe"
            return whisper.tokenizer.Tokenizer(encoding=encoding, **choice)

        whisper.decoding.get_tokenizer = get_tokenizer
        whisper.transcribe.__globals__["get_tokenizer"] = get_tokenizer
        whisper.transcribe.__globals__["log_mel_spectrogram"] = _log_mel
        whisper.decoding.Categorical = self._categorical
        model.decode = self._decode  # type: ignore[method-assign]
        encoder = model.encoder.forward

        def encode(mel: torch.Tensor) -> torch.Tensor:
            key = mel.numpy().tobytes()
            if key not in self._encoded:
                self._encoded[key] = encoder(mel)
            return self._encoded[key]

        model.encoder.forward = encode  # type: ignore[method-assign]

    def _decode(self, mel: torch.Tensor, options: Any) -> Any:
        window = sys._getframe(2).f_locals  # noqa: SLF001  of whisper.transcribe
        this = (self._seed, window["seek"])
        if this != self._last:
            self._rng = np.random.default_rng(list(this))
            self._last = this
        result = whisper.decode(self.model, mel, options)
        self.attempts.append([round(options.temperature, 3), len(result.tokens)])
        return result

    def _categorical(self, logits: torch.Tensor) -> Any:
        tokens = sample(logits.numpy(), self._rng.random(len(logits)))

        class Drawn:
            def sample(self) -> torch.Tensor:
                return torch.from_numpy(tokens)

        return Drawn()

    def transcribe(self, samples: np.ndarray, options: TranscribeOptions) -> dict[str, Any]:
        """What the golden file keeps of one transcription."""
        self._seed, self._last, self.attempts = options.seed, (), []
        window = options.at(options.temperatures[0])
        result = whisper.transcribe(
            self.model,
            samples,
            temperature=options.temperatures,
            fp16=False,
            best_of=(options.best_of or 5) if options.temperatures[-1] > 0 else None,
            beam_size=options.beam_size,
            patience=options.patience,
            length_penalty=window.length_penalty,
            sample_len=window.sample_len,
            suppress_tokens=list(window.suppress_tokens),
            suppress_blank=window.suppress_blank,
            without_timestamps=window.without_timestamps,
            max_initial_timestamp=window.max_initial_timestamp,
            **{
                name: getattr(options, name)
                for name in (
                    "compression_ratio_threshold",
                    "logprob_threshold",
                    "no_speech_threshold",
                    "condition_on_previous_text",
                    "initial_prompt",
                    "carry_initial_prompt",
                    "word_timestamps",
                    "hallucination_silence_threshold",
                )
            },
            clip_timestamps=list(options.clip_timestamps),
        )
        return {
            "language": result["language"],
            "attempts": self.attempts,
            "segments": [_segment(segment) for segment in result["segments"]],
        }


_MELS: dict[bytes, torch.Tensor] = {}


def _log_mel(samples: np.ndarray, n_mels: int, padding: int) -> torch.Tensor:
    """Our features with 30 s of silence behind them: (n_mels, n_frames + 3000)."""
    key = samples.tobytes()
    if key not in _MELS:
        _MELS.clear()  # the recordings come one after another
        _MELS[key] = _padded_log_mel(samples, n_mels, padding)
    return _MELS[key]


def _padded_log_mel(samples: np.ndarray, n_mels: int, padding: int) -> torch.Tensor:
    features = log_mel([samples], n_mels)
    n_frames = features.n_frames + padding // 160
    windows = [features.window(i, silence=True) for i in range(0, n_frames, 3000)]
    return torch.from_numpy(np.concatenate(windows, axis=1)[:, :n_frames])


def _segment(segment: dict[str, Any]) -> list[Any]:
    words = [
        [
            word["word"],
            round(word["start"], 3),
            round(word["end"], 3),
            round(word["probability"], 5),
        ]
        for word in segment.get("words", ())
    ]
    return [
        segment["seek"],
        round(segment["start"], 3),
        round(segment["end"], 3),
        segment["tokens"],
        round(segment["temperature"], 3),
        round(segment["avg_logprob"], 5),
        round(segment["no_speech_prob"], 5),
        round(segment["compression_ratio"], 5),
        words,
    ]


def make(name: str, folder: Path) -> None:
    """Write the golden file of one model."""
    reference = Reference(folder)
    results: dict[str, dict[str, Any]] = {}
    for recording in cases.recordings(name):
        samples = cases.samples_of(recording)
        results[recording] = {
            choice: reference.transcribe(samples, options)
            for choice, options in cases.options(name, len(samples) / 16000).items()
        }
    content = {"weights": sha256(folder / "model.safetensors"), "results": results}
    path = cases.DATA / f"golden_{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def make_written() -> None:
    """Files as openai/whisper writes them, one for each of cases.WRITTEN and each format."""
    written = []
    for transcript, options in cases.WRITTEN:
        result = json.loads(FORMATS["json"](transcript, options))
        files = {}
        for name in ("txt", "srt", "vtt", "tsv", "json"):
            file = io.StringIO()
            whisper.utils.get_writer(name, ".").write_result(result, file, vars(options))
            files[name] = file.getvalue()
        written.append(files)
    path = cases.DATA / "golden_written.json.gz"
    path.write_bytes(gzip.compress(json.dumps(written).encode(), mtime=0))


def main() -> None:
    """Command line."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in sys.argv[1:] or ["written", *cases.MODELS]:
        begin = time.monotonic()
        if name == "written":
            make_written()
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(name, cases.model_folder(name, Path(folder)))
        print(f"{name}: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
