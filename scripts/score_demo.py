#!/usr/bin/env python3
"""Score the demo model on speakers that its training never heard, through the public API.

scripts/score_demo.py                  # prints a Markdown table; --card writes it into the card
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
from demo_speech import DIGITS, HELD_OUT, RATE, Clip, recorded

import whisper_npu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from demo_speech import Samples
    from numpy.typing import NDArray

    from whisper_npu.transcribe import Model
    from whisper_npu.transcript import Transcript

BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
# what AN4's speakers say for zero; the letter o sounds the same
ZERO = {"oh", "o"}


def word_errors(reference: list[str], heard: list[str]) -> int:
    """The fewest substitutions, insertions and deletions between two word lists."""
    row = list(range(len(heard) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(heard, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != word))
            diagonal, row[j] = row[j], best
    return row[-1]


@dataclass
class Recording:
    """Audio and what is said in it: words, and (start, end) of its segments in seconds."""

    samples: Samples
    words: list[str] = field(default_factory=list)
    segments: list[tuple[float, float]] = field(default_factory=list)


def digit_runs(clips: Iterable[Clip]) -> list[tuple[NDArray[np.int16], list[str]]]:
    """The stretches of nothing but digits: samples and words."""
    runs = []
    for clip in clips:
        run: list[tuple[str, int, int]] = []
        for word in [*clip.words, ("", 0, 0)]:
            if word[0] in {*DIGITS, "oh"} and (not run or word[1] - run[-1][2] < 0.4 * RATE):
                run.append(word)
            elif run:
                first, last = run[0], run[-1]
                start = max(0, first[1] - 800) if first is clip.words[0] else first[1]
                end = last[2] + 800 if last is clip.words[-1] else last[2]
                runs.append((clip.samples[start:end], [w for w, _, _ in run]))
                run = []
    return runs


def long_recordings(clips: list[Clip], seconds: float, count: int, seed: int) -> list[Recording]:
    """Digits of one speaker each, with pauses of 0.6 to 1.5 s, over a faint hiss."""
    rng = np.random.default_rng(seed)
    speakers = sorted({clip.speaker for clip in clips})
    recordings = []
    for index in range(count):
        speaker = speakers[index % len(speakers)]
        runs = digit_runs(clip for clip in clips if clip.speaker == speaker)
        single = clips[0].source == "fsdd"
        samples = rng.normal(0, 2e-4, int(seconds * RATE)).astype(np.float32)
        recording, at = Recording(samples), rng.uniform(0.2, 0.8)
        while True:
            chosen = [
                runs[i] for i in rng.integers(len(runs), size=rng.integers(3, 8) if single else 1)
            ]
            gap = np.zeros(int(0.08 * RATE), np.int16)
            speech = np.concatenate([part for run, _ in chosen for part in (run, gap)])[: -len(gap)]
            begin = int(at * RATE)
            end = begin + len(speech)
            if end > len(samples) - RATE // 4:
                break
            samples[begin:end] += speech / np.float32(32768)
            recording.words += [word for _, words in chosen for word in words]
            recording.segments.append((begin / RATE, end / RATE))
            at = end / RATE + rng.uniform(0.6, 1.5)
        recordings.append(recording)
    return recordings


def telephone(samples: Samples) -> Samples:
    """8 kHz, 300 to 3400 Hz, mu-law."""
    narrow = soxr.resample(samples, RATE, 8000)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 1 / 8000)
    narrow = np.fft.irfft(spectrum * ((hertz > 300) & (hertz < 3400)), len(narrow))
    coded = np.round(np.log1p(255 * np.abs(narrow).clip(0, 1)) / np.log(256) * 127) / 127
    return soxr.resample(np.sign(narrow) * (256**coded - 1) / 255, 8000, RATE).astype(np.float32)


def not_speech(seconds: float) -> dict[str, Samples]:
    """Sounds that hold no word."""
    n = int(seconds * RATE)
    time = np.arange(n) / RATE
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft(rng.normal(0, 1, n))
    fall = np.maximum(np.arange(len(spectrum)), 1)
    sounds = {"silence": np.zeros(n)}
    for name, power in (("white noise", 0), ("pink noise", 0.5), ("brown noise", 1)):
        noise = np.fft.irfft(spectrum / fall**power, n)
        sounds[name] = 0.1 * noise / noise.std()
    for hertz in (100, 440, 1000, 3000):
        sounds[f"{hertz} Hz"] = 0.3 * np.sin(2 * np.pi * hertz * time)
    sounds["hum"] = np.sum(
        [0.1 / k * np.sin(2 * np.pi * 50 * k * time) for k in range(1, 8)], axis=0
    )
    sounds["chord"] = np.sum(
        [0.1 * np.sin(2 * np.pi * hz * time) for hz in (220, 277, 330)], axis=0
    )
    return {name: np.asarray(sound, np.float32) for name, sound in sounds.items()}


def same_zero(words: Iterable[str]) -> list[str]:
    """`oh` and `o` written alike: they are one sound."""
    return ["oh" if word in ZERO else word for word in words]


class Scores:
    """Transcribes with one model and counts."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rows: list[tuple[str, str, str]] = []  # what, measured, of what
        self.times: list[float] = []

    def transcribe(self, samples: Samples | Path) -> Transcript:
        """One recording, with the defaults."""
        return self.model.transcribe(samples)

    def errors(self, what: str, recordings: list[Recording]) -> None:
        """Word error rate over recordings; segment times are kept for `segment_times`."""
        wrong = total = 0
        for recording in recordings:
            transcript = self.transcribe(recording.samples)
            reference = same_zero(recording.words)
            wrong += word_errors(reference, same_zero(transcript.text.split()))
            total += len(reference)
            heard = [(s.start, s.end) for s in transcript.segments if s.text.strip()]
            for start, end in recording.segments if heard else []:
                best = max(heard, key=lambda s: min(s[1], end) - max(s[0], start))
                self.times += [abs(best[0] - start), abs(best[1] - end)]
        size = f"{len(recordings)} recordings, {total} words"
        self.add(what, f"{100 * wrong / total:.1f} %", size)

    def add(self, what: str, measured: str, of_what: str) -> None:
        """One row of the table, shown at once."""
        self.rows.append((what, measured, of_what))
        print(f"{what}: {measured} ({of_what})", flush=True)


def public_samples(scores: Scores, folder: Path) -> None:
    """Every recording whose manifest row says ok and gives a text of our words."""
    right, wrong = 0, []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["expect"] not in ("ok", "empty") or row["text"] is None or row["file"] == "jfk.flac":
            continue
        try:
            heard = scores.transcribe(folder / row["file"]).text.split()
        except whisper_npu.errors.WhisperNpuError as error:
            heard = [str(error)]
        if row["file"] == "long_digits.flac":
            words = row["text"].split()
            rate = 100 * word_errors(words, heard) / len(words)
            scores.add("93 s recording (training speakers)", f"{rate:.1f} %", f"{len(words)} words")
        elif heard == row["text"].split():
            right += 1
        else:
            wrong.append(f"{row['file']}: {' '.join(heard)}")
    print("\n".join(wrong))
    scores.add("public samples, every word right", f"{right} of {right + len(wrong)}", "files")


def main() -> None:
    """Score, print, and write the card if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    parser.add_argument("--count", type=int, default=36, help="recordings per row")
    options = parser.parse_args()

    held_out = [c for c in recorded(options.data / "train_pack") if c.speaker in HELD_OUT]
    an4 = [clip for clip in held_out if clip.source == "an4"]
    fsdd = [clip for clip in held_out if clip.source == "fsdd"]
    spoken = [clip for clip in an4 if {*clip.text.split()} <= {*DIGITS, "oh"}]
    with whisper_npu.load_model(options.model, device="cpu") as model:
        scores = Scores(model)
        whole = long_recordings(spoken, 10, options.count, 5)
        scores.errors("AN4 digits, 10 s", whole)
        narrow = [Recording(telephone(r.samples), r.words, r.segments) for r in whole]
        scores.errors("AN4 digits, 10 s, telephone", narrow)
        scores.errors("AN4 digits, 30 s", long_recordings(spoken, 30, options.count // 2, 6))
        scores.errors(
            "AN4 digits, many cut out of other phrases, 10 s",
            long_recordings(an4, 10, options.count, 1),
        )
        scores.errors("the same, 30 s", long_recordings(an4, 30, options.count // 2, 2))
        scores.errors("FSDD digits, 10 s", long_recordings(fsdd, 10, options.count, 3))
        scores.errors("FSDD digits, 30 s", long_recordings(fsdd, 30, options.count // 3, 4))
        scores.add(
            "segment start and end, median error",
            f"{statistics.median(scores.times):.3f} s",
            f"{len(scores.times)} times; 9 of 10 within {np.quantile(scores.times, 0.9):.2f} s",
        )
        scores.errors(
            "AN4 utterances",
            [Recording(c.samples / np.float32(32768), c.text.split()) for c in an4],
        )
        texts = {name: scores.transcribe(s).text.strip() for name, s in not_speech(35).items()}
        invented = [f"{name}: {text}" for name, text in texts.items() if text]
        scores.add(
            "35 s without speech: text invented", f"{len(invented)} of {len(texts)}", "sounds"
        )
        print("\n".join(invented))
        if (options.data / "public_samples").is_dir():
            public_samples(scores, options.data / "public_samples")
    lines = ["| cell | measured | of |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in scores.rows]
    table = "\n".join(lines)
    print(table)
    if options.card:
        card = options.model / "README.md"
        before, rest = card.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        card.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
