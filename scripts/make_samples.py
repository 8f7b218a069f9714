#!/usr/bin/env python3
"""Make the sample recordings in samples/ and their manifest, the same bytes each time.

Needs espeak-ng and flite. The words are those that the demo model knows; the voices are theirs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from demo_speech import RATE, Voice

SLT = Voice("flite", "slt", speed=0.85)
SLOW = Voice("flite", "slt", speed=0.8)
AWB = Voice("flite", "awb", speed=0.9)
ESPEAK = Voice("espeak-ng", "en-us", speed=0.75)


@dataclass(frozen=True)
class Sample:
    """A recording: silence, then phrases with the silence that follows each."""

    file: str
    phrases: tuple[tuple[Voice, str, float], ...] = ()  # voice, text, seconds of silence after
    lead: float = 0.4  # seconds of silence at the start
    rate: int = RATE  # Hz


SAMPLES = (
    Sample("digits.flac", ((SLT, "three one four one five nine", 0.5),)),
    Sample(
        "two_phrases.flac",
        ((SLOW, "seven two zero eight", 1.2), (SLOW, "enter fifty four", 0.5)),
    ),
    Sample(
        "long.flac",  # more than one window of 30 s
        (
            (SLOW, "one two three four five", 1.5),
            (SLOW, "six seven eight nine", 1.8),
            (ESPEAK, "zero one zero two", 1.6),
            (AWB, "enter fifty four", 2.0),
            (SLOW, "six five nine two", 1.5),
            (SLOW, "nine eight seven six", 1.8),
            (SLOW, "two four six eight", 1.6),
            (SLOW, "yes", 2.0),
            (SLOW, "three three one five", 1.5),
            (AWB, "seven nine two two", 1.8),
            (SLOW, "two seven one eight", 1.6),
            (SLOW, "four zero eight one", 1.5),
            (SLOW, "five two six", 1.0),
        ),
        rate=8000,
    ),
    Sample("silence.flac", lead=12.0),
)


def make(sample: Sample, folder: Path) -> dict[str, object]:
    """Write one FLAC; its row of the manifest, with (start, end, text) of each phrase."""
    parts = [np.zeros(int(sample.lead * RATE), np.float32)]
    segments = []
    length = len(parts[0])
    for voice, text, silence in sample.phrases:
        speech = voice.say(text.split())
        speech *= 0.25 / np.abs(speech).max()
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
        "voices": sorted({f"{voice.program} {voice.name}" for voice, _, _ in sample.phrases}),
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
