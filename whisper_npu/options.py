"""How a recording is transcribed: every choice, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from whisper_npu.decoding import DecodingOptions
from whisper_npu.errors import OptionError
from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.speech import SpeechOptions, require_detector
from whisper_npu.timing import APPENDED, PREPENDED
from whisper_npu.tokenizer import language_code

TEMPERATURES = tuple(float(t) for t in np.arange(0, 1 + 1e-6, 0.2))
AUTO, AUTO_EACH = "auto", "auto-each"  # languages: one per recording, one per window


@dataclass(frozen=True)
class TranscribeOptions:
    """How a recording is transcribed. Raises OptionError when the options contradict each other."""

    task: str = "transcribe"
    language: str = AUTO  # code or name; auto: of the first speech; auto-each: of each window
    temperatures: tuple[float, ...] = TEMPERATURES  # each is tried when the one before fails
    beam_size: int | None = None  # at temperature 0; None: greedy
    best_of: int | None = None  # above temperature 0; None: 5
    patience: float | None = None
    length_penalty: float | None = None
    sample_len: int | None = None
    suppress_tokens: tuple[int, ...] = (-1,)
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    compression_ratio_threshold: float | None = 2.4  # above: failed, it repeats itself
    logprob_threshold: float | None = -1.0  # below: failed, it guesses
    no_speech_threshold: float | None = 0.6  # above, and failed: silence
    condition_on_previous_text: bool = True
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False  # before every window, not just the first
    hotwords: str | None = None  # words to expect, before every window
    prefix: str | None = None  # what the first window begins with
    word_timestamps: bool = False
    prepend_punctuations: str = PREPENDED
    append_punctuations: str = APPENDED
    hallucination_silence_threshold: float | None = None  # seconds around what may be invented
    vad: bool = False  # hear nothing but speech, as a detector finds it
    vad_threshold: float = 0.5
    vad_min_speech_duration_ms: float = 0
    vad_min_silence_duration_ms: float = 2000
    vad_speech_pad_ms: float = 400
    clip_timestamps: tuple[float, ...] = (0.0,)  # seconds: start, end, start, end, ...
    seed: int = 0  # of sampling

    def __post_init__(self) -> None:
        if self.language not in (AUTO, AUTO_EACH):
            language_code(self.language)
        self._check_temperatures()
        self._check_needs()
        self._check_clips()
        if self.vad:
            require_detector()
        _ = self.speech
        for temperature in self.temperatures:
            self.at(temperature)

    def _check_temperatures(self) -> None:
        temperatures = self.temperatures
        if not temperatures or list(temperatures) != sorted(set(temperatures)):
            raise OptionError("temperatures must be one or more, and rise")
        if self.best_of and temperatures[-1] == 0:
            raise OptionError("best_of needs a temperature above 0: greedy search has one result")
        if self.beam_size and temperatures[0] > 0:
            raise OptionError("beam_size needs temperature 0")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is negative")

    def _check_needs(self) -> None:
        if self.patience is not None and not self.beam_size:
            raise OptionError("patience needs beam_size")
        if self.carry_initial_prompt and not self.initial_prompt:
            raise OptionError("carry_initial_prompt needs initial_prompt")
        if self.hallucination_silence_threshold is not None and not self.word_timestamps:
            raise OptionError("hallucination_silence_threshold needs word_timestamps")

    def _check_clips(self) -> None:
        clips = self.clip_timestamps
        if not all(0 <= seconds < np.inf for seconds in clips):
            raise OptionError("clip_timestamps must be seconds from 0 upward")
        if not all(a < b for a, b in pairwise(clips)):
            raise OptionError("clip_timestamps must rise: start, end, start, end, ...")

    @property
    def speech(self) -> SpeechOptions:
        """What the detector takes for speech."""
        return SpeechOptions(
            self.vad_threshold,
            self.vad_min_speech_duration_ms / 1000,
            self.vad_min_silence_duration_ms / 1000,
            self.vad_speech_pad_ms / 1000,
        )

    def at(self, temperature: float) -> DecodingOptions:
        """Options for one window at one temperature."""
        sampling = temperature > 0
        return DecodingOptions(
            task=self.task,
            temperature=temperature,
            best_of=(self.best_of or 5) if sampling else None,
            beam_size=None if sampling else self.beam_size,
            patience=None if sampling else self.patience,
            length_penalty=self.length_penalty,
            sample_len=self.sample_len,
            suppress_tokens=self.suppress_tokens,
            suppress_blank=self.suppress_blank,
            without_timestamps=self.without_timestamps,
            max_initial_timestamp=self.max_initial_timestamp,
        )

    def clips(self, n_frames: int) -> list[tuple[int, int]]:
        """Frames to transcribe: (start, end). Raises OptionError for a clip beyond the end."""
        points = [round(seconds * FRAMES_PER_SECOND) for seconds in self.clip_timestamps] or [0]
        if len(points) % 2:
            points.append(n_frames)
        last = max(points[::2])
        if last >= max(n_frames, 1):
            raise OptionError(
                f"a clip begins at {last / FRAMES_PER_SECOND:g} s, "
                f"the recording ends at {n_frames / FRAMES_PER_SECOND:g} s"
            )
        ends = [min(end, n_frames) for end in points[1::2]]
        return list(zip(points[::2], ends, strict=True))


DEFAULT = TranscribeOptions()


def fallback_temperatures(first: float, increment: float | None) -> tuple[float, ...]:
    """Temperatures from `first` to 1; None: no fallback. Raises OptionError."""
    if increment is None:
        return (first,)
    if not increment > 0:
        raise OptionError(f"temperature increment {increment:g} is not above 0")
    return tuple(float(t) for t in np.arange(first, 1 + 1e-6, increment)) or (first,)
