"""What a result is: words in segments in a transcript. No behaviour, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisper_npu.figures import Origin


@dataclass(frozen=True)
class Word:
    """A word as spoken, with its leading space and trailing punctuation."""

    text: str
    start: float  # seconds from the beginning of the recording
    end: float
    probability: float  # mean over the word's tokens


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two timestamps."""

    id: int
    seek: int  # first frame (10 ms) of the window it was decoded in
    start: float  # seconds
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None  # None: word times were not asked for
    aligned: tuple[Word, ...] | None = None  # words for pages and cues, beside the segment's times
    language: str | None = None  # None: that of the transcript


@dataclass(frozen=True)
class Transcript:
    """All segments of one recording, in order."""

    text: str
    segments: tuple[Segment, ...]
    language: str  # code, such as "en"
    language_probability: float | None  # None: the language was given, not detected
    duration: float  # seconds of audio
    device: str = ""  # that transcribed it, or the last part of it: "npu fp16 (emulated rk3588)"
    origin: Origin = "measured"  # or emulated: `device` is no real one
