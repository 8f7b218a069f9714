#!/usr/bin/env python3
"""Make the sample recordings in samples/ and their manifest, the same bytes each time.

Needs flite: its voices read sentences that this project wrote.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 16000  # Hz
STORY = "Please read the whole story before you decide what it means."
COFFEE = "Good morning, the weather is fine, and the coffee is ready in the kitchen."
UMBRELLA = "Take your umbrella with you, because it will rain this evening."
LETTER = "She wrote a long letter to her brother, but he never answered it."
TRAIN = "The train to the city leaves early in the morning."


@dataclass(frozen=True)
class Sample:
    """A recording: silence, then sentences with the silence that follows each."""

    file: str
    sentences: tuple[tuple[str, str, float], ...] = ()  # voice, text, seconds of silence after
    lead: float = 0.4  # seconds of silence at the start
    rate: int = RATE  # Hz


SAMPLES = (
    Sample("sentence.flac", (("slt", STORY, 0.5),)),
    Sample("two_sentences.flac", (("slt", COFFEE, 1.2), ("rms", UMBRELLA, 0.5))),
    Sample(
        "long.flac",  # more than one window of 30 s
        (
            ("slt", COFFEE, 1.5),
            ("slt", TRAIN, 1.8),
            ("awb", STORY, 2.0),
            ("slt", LETTER, 1.5),
            ("rms", UMBRELLA, 1.8),
            ("slt", STORY, 1.6),
            ("rms", COFFEE, 1.5),
            ("slt", UMBRELLA, 1.0),
        ),
        rate=12000,
    ),
    Sample("silence.flac", lead=12.0),
)


def say(voice: str, text: str) -> NDArray[np.float32]:
    """Speech by one of flite's voices, a little slower than it speaks: (S,) at 16 kHz."""
    command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    command += ["--setf", "duration_stretch=1.15"]
    found = subprocess.run(command, capture_output=True, check=True)
    samples, rate = soundfile.read(io.BytesIO(found.stdout), dtype="float32")
    samples = soxr.resample(samples, rate, RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    speech: NDArray[np.float32] = samples[loud[0] : loud[-1] + 1]
    return 0.25 * speech / np.abs(speech).max()


def make(sample: Sample, folder: Path) -> dict[str, object]:
    """Write one FLAC; its row of the manifest, with (start, end, text) of each sentence."""
    parts = [np.zeros(int(sample.lead * RATE), np.float32)]
    segments = []
    length = len(parts[0])
    for voice, text, silence in sample.sentences:
        speech = say(voice, text)
        segments.append((round(length / RATE, 2), round((length + len(speech)) / RATE, 2), text))
        parts += [speech, np.zeros(int(silence * RATE), np.float32)]
        length += len(speech) + int(silence * RATE)
    samples = np.concatenate(parts)
    if sample.rate != RATE:
        samples = soxr.resample(samples, RATE, sample.rate)
    soundfile.write(folder / sample.file, samples, sample.rate, subtype="PCM_16")
    return {
        "file": sample.file,
        "text": " ".join(text for _, _, text in segments),
        "seconds": round(length / RATE, 2),
        "rate": sample.rate,
        "segments": segments,
        "voices": sorted({f"flite {voice}" for voice, _, _ in sample.sentences}),
    }


def main() -> None:
    """Make all samples in the folder named, by default samples/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [make(sample, folder) for sample in SAMPLES]
    text = json.dumps(rows, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
