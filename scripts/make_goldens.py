#!/usr/bin/env python3
"""Golden results of whole transcriptions, from openai/whisper (`pip install openai-whisper`).

    scripts/make_goldens.py written random random.en
    scripts/make_goldens.py base=FOLDER tiny.en=FOLDER     real weights: hours on one core

Writes tests/data/golden_NAME.json.gz. What has been found is kept in golden_NAME.jsonl in the
folder of --work; run again, it goes on from there. What the tests compare is defined in
tests/golden_cases.py. openai/whisper runs as it is, in float32 with its own features and
vocabulary, but for its random numbers: they come from our sampler.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
import tempfile
import time
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

from whisper_npu.checkpoint import Checkpoint  # noqa: E402
from whisper_npu.decoding import sample  # noqa: E402
from whisper_npu.writers import FORMATS  # noqa: E402

if TYPE_CHECKING:
    from whisper_npu.options import TranscribeOptions


class Reference:
    """One of our model folders in openai/whisper."""

    def __init__(self, name: str, folder: Path) -> None:
        self.model = openai_model(folder)
        if name in cases.REAL:
            self.model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])  # noqa: SLF001
        self.attempts: list[list[float]] = []
        self._seed = 0
        self._last: tuple[Any, ...] = ()
        self._rng = np.random.default_rng()
        self._encoded: dict[bytes, torch.Tensor] = {}
        self._patch()

    def _patch(self) -> None:
        """Our random numbers, a note of each attempt, and each window encoded once."""
        whisper.decoding.Categorical = self._categorical
        self.model.decode = self._decode  # type: ignore[method-assign]
        encoder = self.model.encoder.forward

        def encode(mel: torch.Tensor) -> torch.Tensor:
            key = mel.numpy().tobytes()
            if key not in self._encoded:
                self._encoded[key] = encoder(mel)
            return self._encoded[key]

        self.model.encoder.forward = encode  # type: ignore[method-assign]

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

    def forget(self) -> None:
        """Drop the encoded windows of the recording before."""
        self._encoded.clear()

    def transcribe(self, samples: np.ndarray, options: TranscribeOptions) -> dict[str, Any]:
        """What the golden file keeps of one transcription."""
        self._seed, self._last, self.attempts = options.seed, (), []
        window = options.at(options.temperatures[0])
        result = whisper.transcribe(
            self.model,
            samples,
            temperature=options.temperatures,
            fp16=False,
            task=options.task,
            language=None if options.language == "auto" else options.language,
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
        for segment in result["segments"]:
            _round(segment)
        return {
            "language": result["language"],
            "attempts": self.attempts,
            "segments": [_record(segment) for segment in result["segments"]],
            "files": written(result),
        }


def _round(segment: dict[str, Any]) -> None:
    """Numbers that are equal only nearly, to what the golden file keeps of them."""
    for name in ("avg_logprob", "no_speech_prob"):
        segment[name] = round(segment[name], 5)
    for word in segment.get("words", ()):
        word["probability"] = round(word["probability"], 5)


def _record(segment: dict[str, Any]) -> list[Any]:
    words = [
        [word["word"], float(word["start"]), float(word["end"]), word["probability"]]
        for word in segment.get("words", ())
    ]
    return [
        segment["seek"],
        float(segment["start"]),
        float(segment["end"]),
        segment["tokens"],
        segment["temperature"],
        segment["avg_logprob"],
        segment["no_speech_prob"],
        segment["compression_ratio"],
        words,
    ]


def written(result: dict[str, Any]) -> dict[str, str]:
    """Format -> the beginning of the SHA-256 of the file that openai/whisper writes."""
    digests = {}
    for name in cases.WRITTEN_FORMATS:
        file = io.StringIO()
        plain = dict.fromkeys(("highlight_words", "max_line_width", "max_line_count"))
        whisper.utils.get_writer(name, ".").write_result(result, file, plain)
        digests[name] = hashlib.sha256(file.getvalue().encode()).hexdigest()[:12]
    return digests


def make(name: str, folder: Path, work: Path) -> None:
    """Write the golden file of one model."""
    reference = Reference(name, folder)
    journal = work / f"golden_{name}.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    done = {(row[0], row[1]): row[2] for row in map(json.loads, lines)}
    results: dict[str, dict[str, Any]] = {}
    with journal.open("a", encoding="utf-8") as file:
        for recording, choice, options in _jobs(name):
            if (recording, choice) not in done:
                begin = time.monotonic()
                if recording not in results:
                    reference.forget()
                found = reference.transcribe(cases.samples_of(recording), options)
                done[recording, choice] = found
                print(json.dumps([recording, choice, found]), file=file, flush=True)
                seconds = time.monotonic() - begin
                print(f"{name} {recording} {choice}: {seconds:.1f} s", flush=True)
            results.setdefault(recording, {})[choice] = done[recording, choice]
    content = {"weights": cases.fingerprint(Checkpoint(folder)), "results": results}
    path = cases.DATA / f"golden_{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def _jobs(name: str) -> list[tuple[str, str, TranscribeOptions]]:
    """Recording, name of the option set, option set; short recordings first."""
    jobs: list[tuple[float, str, str, TranscribeOptions]] = []
    for recording in cases.recordings(name):
        seconds = len(cases.samples_of(recording)) / 16000
        sets = cases.options(name, recording, seconds)
        jobs += [(seconds, recording, choice, options) for choice, options in sets.items()]
    jobs.sort(key=lambda job: (job[2] != cases.FIRST, job[0]))
    return [job[1:] for job in jobs]


def make_written() -> None:
    """Files as openai/whisper writes them, one for each of cases.WRITTEN and each format."""
    contents = []
    for transcript, options in cases.WRITTEN:
        result = json.loads(FORMATS["json"](transcript, options))
        files = {}
        for name in cases.WRITTEN_FORMATS:
            file = io.StringIO()
            whisper.utils.get_writer(name, ".").write_result(result, file, vars(options))
            files[name] = file.getvalue()
        contents.append(files)
    path = cases.DATA / "golden_written.json.gz"
    path.write_bytes(gzip.compress(json.dumps(contents).encode(), mtime=0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+", metavar="NAME[=FOLDER]")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for model in options.models:
        name, _, folder = model.partition("=")
        with tempfile.TemporaryDirectory() as scratch:
            if name == "written":
                make_written()
            elif name in cases.RANDOM:
                random = cases.lively(Path(scratch) / name, *cases.RANDOM[name])
                make(name, random, Path(scratch))
            else:
                make(name, Path(folder), options.work or Path(scratch))


if __name__ == "__main__":
    main()
