"""Speech that the demo model learns from: the words, the synthesisers, the recorded corpora.

Every source becomes a list of `Clip`: one speaker, one stretch of speech, its words with times.
"""

from __future__ import annotations

import functools
import io
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

RATE = 16000

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
MONTHS = (
    "january february march april may june july august september october november december".split()
)
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth".split()
)
COMMANDS = "enter rubout erase repeat yes no start stop help go".split()
OTHERS = "oh hundred thousand and of half apostrophe area code".split()
WORDS = [*DIGITS, *TEENS, *TENS, *LETTERS, *MONTHS, *ORDINALS, *COMMANDS, *OTHERS]

# Speakers that training never hears: the development split (women: the first four)
HELD_OUT = (
    "an4/fbbh an4/fclc an4/ffmm an4/fjam an4/mblw an4/mdxs an4/mjhp an4/mrab an4/mtos fsdd/yweweler"
).split()


@dataclass(frozen=True)
class Clip:
    """One stretch of speech by one speaker.

    samples: (S,) int16, 16 kHz, with a little of its own context before and after the speech
    words: (word, start, end), start and end in samples of this clip
    """

    speaker: str
    source: str  # an4, fsdd or synthetic
    samples: NDArray[np.int16]
    words: tuple[tuple[str, int, int], ...]

    @property
    def text(self) -> str:
        """The words, in lower case, separated by one space."""
        return " ".join(word for word, _, _ in self.words)


def _some(rng: np.random.Generator, words: list[str], low: int, high: int) -> list[str]:
    return [str(word) for word in rng.choice(words, rng.integers(low, high + 1))]


def _digits(rng: np.random.Generator) -> list[str]:
    zero = "oh" if rng.random() < 0.25 else "zero"
    return [zero if word == "zero" else word for word in _some(rng, DIGITS, 1, 10)]


def _number(rng: np.random.Generator) -> list[str]:
    kind = rng.integers(4)
    if kind == 0:
        return _some(rng, TENS, 1, 1) + _some(rng, DIGITS[1:], 0, 1)
    if kind == 1:
        return _some(rng, TEENS, 1, 1)
    if kind == 2:
        hundreds = [*_some(rng, DIGITS[1:], 1, 1), "hundred", *["and"] * rng.integers(2)]
        return hundreds + _some(rng, TENS + TEENS, 0, 1)
    return [*_some(rng, DIGITS[1:] + TENS, 1, 1), "thousand", *_some(rng, TENS, 0, 1)]


def _numbers(rng: np.random.Generator) -> list[str]:
    return _number(rng) + (_number(rng) if rng.random() < 0.5 else [])


def _spelling(rng: np.random.Generator) -> list[str]:
    return _some(rng, LETTERS, 2, 9)


def _entry(rng: np.random.Generator) -> list[str]:
    command = _some(rng, ["enter", "rubout", "erase"], 0, 1)
    return command + _some(rng, LETTERS, 1, 5) + _number(rng)


def _date(rng: np.random.Generator) -> list[str]:
    twenty = ["twenty"] if rng.random() >= 0.6 else []
    day = twenty + _some(rng, ORDINALS[:9] if twenty else ORDINALS, 1, 1)
    month = _some(rng, MONTHS, 1, 1)
    date = month + day if rng.random() < 0.7 else [*day, "of", *month]
    return date + _some(rng, DIGITS, 0, 4)


def _commands(rng: np.random.Generator) -> list[str]:
    return _some(rng, COMMANDS, 1, 2)


def _any_words(rng: np.random.Generator) -> list[str]:
    return _some(rng, WORDS, 1, 7)


_PHRASES = (_digits, _spelling, _entry, _numbers, _date, _commands, _any_words)
_SHARES = (0.40, 0.14, 0.12, 0.08, 0.08, 0.04, 0.14)


def phrase(rng: np.random.Generator) -> list[str]:
    """Words in an order that people say them in: numbers, spellings, dates, commands."""
    return _PHRASES[rng.choice(len(_PHRASES), p=_SHARES)](rng)


# What a synthesiser must be given so that it says the word as AN4's speakers do
_SAID_AS = {"a": "ay", "z": "zee", "rubout": "rub out"}


def _run(command: list[str]) -> Samples:
    wav = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


@dataclass(frozen=True)
class Voice:
    """One setting of one synthesiser."""

    program: str  # espeak-ng or flite
    name: str
    speed: float = 1.0
    pitch: float = 0.5  # 0 low .. 1 high

    def say(self, words: list[str]) -> Samples:
        """Speech without the silence around it: samples (S,), 16 kHz, -1 .. 1."""
        text = " ".join(
            _SAID_AS.get(word, word.upper() if len(word) == 1 else word) for word in words
        )
        if self.program == "espeak-ng":
            rate, pitch = round(165 * self.speed), round(100 * self.pitch)
            command = ["espeak-ng", "-v", self.name, f"-s{rate}", f"-p{pitch}", "--stdout", text]
            samples = _run(command)
        else:
            samples = _run(
                [
                    *["flite", "-voice", self.name, "-t", text, "-o", "/dev/stdout"],
                    *["--setf", f"duration_stretch={1 / self.speed:.3f}"],
                    *["--setf", f"int_f0_target_mean={80 + 140 * self.pitch:.0f}"],
                ]
            )
        start, end = loud_part(samples)
        return samples[start:end]


FLITE_VOICES = "slt awb rms kal16 kal".split()
_ESPEAK_ACCENTS = "en-us en-us en-us en-gb en-gb-scotland en-gb-x-rp en-us-nyc en-029".split()
_ESPEAK_TIMBRES = "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Andy Annie belinda linda steph".split()


def random_voice(rng: np.random.Generator) -> Voice:
    """A voice of either synthesiser, at a random speed and pitch."""
    speed, pitch = float(rng.uniform(0.65, 1.1)), float(rng.uniform(0.15, 0.85))
    if rng.random() < 0.45:
        name = str(rng.choice(FLITE_VOICES, p=[0.35, 0.25, 0.2, 0.1, 0.1]))
        return Voice("flite", name, speed, pitch)
    accent, timbre = rng.choice(_ESPEAK_ACCENTS), rng.choice(_ESPEAK_TIMBRES)
    name = str(accent) if rng.random() < 0.15 else f"{accent}+{timbre}"
    return Voice("espeak-ng", name, speed, pitch)


def loud_part(samples: Samples, below_peak_db: float = 40.0) -> tuple[int, int]:
    """First and last sample of the 10 ms frames within `below_peak_db` of the loudest."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    loud = np.flatnonzero(level > level.max() - below_peak_db)
    return int(loud[0]) * 160, int(loud[-1] + 1) * 160


def synthesise(count: int, seed: int, cache: Path) -> list[Clip]:
    """`count` phrases, each by its own random voice; kept in `cache` between runs."""
    folder = cache / f"synthetic-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        words, voice = phrase(rng), random_voice(rng)
        path = folder / f"{index:05d}.flac"
        if not path.exists():
            samples = voice.say(words)
            samples = samples / (1.2 * np.abs(samples).max())
            soundfile.write(path, samples, RATE)
        samples = soundfile.read(path, dtype="int16")[0]
        # only the ends are known: the words within share the time equally, and are never cut out
        edges = np.linspace(0, len(samples), len(words) + 1).astype(int).tolist()
        speaker = f"{voice.program}/{voice.name}"
        clips.append(
            Clip(speaker, "synthetic", samples, tuple(zip(words, edges, edges[1:], strict=False)))
        )
    return clips


@functools.lru_cache(maxsize=2)
def _corpus_file(path: Path) -> NDArray[np.int16]:
    return np.asarray(soundfile.read(path, dtype="int16")[0])


def recorded(data: Path) -> list[Clip]:
    """All recorded utterances whose words have times. data: the train_pack folder."""
    clips = []
    for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["words"] is None:
            continue
        start, end = row["start"], row["end"]
        samples = _corpus_file(data / row["file"])[start:end]
        words = tuple(
            (word, max(0, first - start), min(last, end) - start)
            for word, first, last in row["words"]
        )
        clips.append(Clip(row["speaker"], row["source"], samples, words))
    return clips


def noises(data: Path, kind: str) -> list[Samples]:
    """The pack's background noises or room responses: kind `noise` or `rir`, each (S,)."""
    rows = (data / "noise" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    files = [row["file"] for row in map(json.loads, rows) if row["kind"] == kind]
    return [np.asarray(soundfile.read(data / f, dtype="float32")[0], np.float32) for f in files]
