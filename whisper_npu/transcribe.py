"""One recording -> segments, window by window: seek, fallback, prompts, languages.

A window is 30 s; where the next one begins depends on what was heard in this one. Nothing of a
recording is held but its features and the last few hundred tokens. Source of the rules:
openai/whisper transcribe.py.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whisper_npu.audio import open_audio
from whisper_npu.decoding import Decoder, DecodingOptions, Hypothesis
from whisper_npu.errors import OptionError
from whisper_npu.features import FRAMES_PER_SECOND, WINDOW, log_mel
from whisper_npu.tokenizer import TIME_PRECISION, Tokenizer, language_code
from whisper_npu.transcript import Segment, Transcript
from whisper_npu.writers import segment_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import Self

    from whisper_npu.audio import Source
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices import Device

    Float = NDArray[np.float32]

FRAMES_PER_TIMESTAMP = 2
TEMPERATURES = tuple(float(t) for t in np.arange(0, 1 + 1e-6, 0.2))
AUTO, AUTO_EACH = "auto", "auto-each"  # languages: one per recording, one per window

_log = logging.getLogger(__name__)


class Features(Protocol):
    """The log-mel of one recording, as `features.LogMel` has it."""

    @property
    def n_frames(self) -> int:
        """Frames of 10 ms that hold audio."""
        ...

    def window(self, start: int, n_frames: int = WINDOW, *, silence: bool = False) -> Float:
        """(n_mels, 3000) float32: frames from `start`; behind n_frames zeros, or true silence."""
        ...


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
    clip_timestamps: tuple[float, ...] = (0.0,)  # seconds: start, end, start, end, ...
    seed: int = 0  # of sampling

    def __post_init__(self) -> None:
        if self.language not in (AUTO, AUTO_EACH):
            language_code(self.language)
        if self.best_of and not any(t > 0 for t in self.temperatures):
            raise OptionError("best_of needs a temperature above 0: greedy search has one result")
        if self.beam_size and 0 not in self.temperatures:
            raise OptionError("beam_size needs temperature 0")
        if not self.temperatures:
            raise OptionError("no temperature to decode at")
        if list(self.temperatures) != sorted(set(self.temperatures)):
            raise OptionError("temperatures must rise")
        if self.carry_initial_prompt and not self.initial_prompt:
            raise OptionError("carry_initial_prompt needs an initial_prompt")
        self._check_clips()
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is negative")
        for temperature in self.temperatures:
            self.at(temperature)
        if self.patience is not None and not self.beam_size:
            raise OptionError("patience needs beam_size")

    def _check_clips(self) -> None:
        clips = self.clip_timestamps
        if not all(0 <= seconds < np.inf for seconds in clips):
            raise OptionError("clip_timestamps must be seconds from 0 upward")
        if not all(a < b for a, b in pairwise(clips)):
            raise OptionError("clip_timestamps must rise: start, end, start, end, ...")

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


@dataclass(frozen=True)
class State:
    """Where a transcription stands between two windows: all it needs to go on later."""

    seek: int = 0  # frame at which the next window begins
    n_segments: int = 0
    recent: tuple[int, ...] | None = None  # tokens for the next prompt; None: nothing done yet
    last_speech: float = 0.0  # seconds
    language: str | None = None  # heard so far
    language_probability: float | None = None
    language_settled: bool = False


@dataclass(frozen=True)
class Language:
    """Event: the language spoken from `start` on."""

    code: str
    probability: float
    start: float  # seconds


@dataclass(frozen=True)
class WindowDone:
    """Event: everything before `seconds` is done, heard or skipped; `state` continues there."""

    seconds: float
    state: State


Event = Language | Segment | WindowDone


def record(event: Event) -> dict[str, Any]:
    """An event as JSON knows it."""
    if isinstance(event, Segment):
        return {"event": "segment", **segment_record(event)}
    if isinstance(event, Language):
        return {"event": "language", "language": event.code, "probability": event.probability}
    return {"event": "progress", "seconds": event.seconds}


class Model:
    """An opened model: weights, vocabulary and the device that runs it."""

    def __init__(self, checkpoint: Checkpoint, device: Device) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.tokenizer = Tokenizer(checkpoint.folder, multilingual=checkpoint.is_multilingual)
        self.decoder = Decoder(device, self.tokenizer, checkpoint.dims.n_text_ctx)

    def open(
        self, audio: Source | Float, options: TranscribeOptions, state: State | None = None
    ) -> Transcription:
        """Read a recording (path, "-", binary file or samples at 16 kHz) and get ready.

        Raises AudioError, OptionError.
        """
        n_mels = self.checkpoint.dims.n_mels
        if isinstance(audio, np.ndarray):
            return Transcription(self, log_mel([audio], n_mels), options, state)
        with open_audio(audio) as opened:
            return Transcription(self, log_mel(opened.blocks, n_mels), options, state)

    def segments(
        self, audio: Source | Float, options: TranscribeOptions = DEFAULT
    ) -> Iterator[Segment]:
        """The segments of a recording, as they are found."""
        for event in self.open(audio, options):
            if isinstance(event, Segment):
                yield event

    def transcribe(self, audio: Source | Float, options: TranscribeOptions = DEFAULT) -> Transcript:
        """All of a recording."""
        transcription = self.open(audio, options)
        found = [event for event in transcription if isinstance(event, Segment)]
        return transcription.transcript(found)

    def close(self) -> None:
        """Give the device back."""
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transcription:
    """One recording going through one model; iterate over it for events, in order.

    Raises OptionError for what only the model or the recording can tell: a language it does not
    know, a clip beyond the end.
    """

    def __init__(
        self,
        model: Model,
        features: Features,
        options: TranscribeOptions,
        state: State | None = None,
    ) -> None:
        self.state = state or State()
        self._model = model
        self._features = features
        self._options = options
        self._clips = options.clips(features.n_frames)
        self._language = self._fixed_language()
        self._fixed_prompt, first = self._prompts()
        if self.state.recent is None:
            self.state = replace(self.state, recent=first)

    def _fixed_language(self) -> str | None:
        """The language that needs no detection."""
        asked = self._options.language
        code = None if asked in (AUTO, AUTO_EACH) else language_code(asked)
        if not self._model.tokenizer.multilingual:
            if code not in (None, "en"):
                _log.warning("the model knows only English: taking %r as English", asked)
            if self._options.task == "translate":
                _log.warning("the model knows only English: transcribing, not translating")
            return "en"
        if code is not None:
            self._model.tokenizer.sot_sequence(code, self._options.task)  # raises if unknown
        return code

    def _prompts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens before every window, and those before the first one only."""
        options, encode = self._options, self._model.tokenizer.encode
        fixed = encode(f" {options.hotwords.strip()}") if options.hotwords else []
        initial = encode(f" {options.initial_prompt.strip()}") if options.initial_prompt else []
        if options.carry_initial_prompt:
            return tuple(fixed + initial), ()
        return tuple(fixed), tuple(initial)

    def __iter__(self) -> Iterator[Event]:
        for start, end in self._clips:
            self.state = replace(self.state, seek=max(self.state.seek, start))
            while self.state.seek < end:
                yield from self._window(end)
                yield WindowDone(self.state.seek / FRAMES_PER_SECOND, self.state)

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self._features.n_frames / FRAMES_PER_SECOND

    def transcript(self, segments: list[Segment]) -> Transcript:
        """All that was found as one result."""
        return Transcript(
            text=self._model.tokenizer.decode(t for found in segments for t in found.tokens),
            segments=tuple(segments),
            language=self._language or self.state.language or "en",
            language_probability=self.state.language_probability,
            duration=self.duration,
        )

    def _window(self, clip_end: int) -> Iterator[Event]:
        """Transcribe the window at the state's seek, and move the state behind it."""
        state = self.state
        size = min(WINDOW, self._features.n_frames - state.seek, clip_end - state.seek)
        encoded = self._model.device.encode(self._features.window(state.seek, size))
        self._hear_language(encoded, whole=size == WINDOW)
        hypothesis = self._decode(encoded)
        if self._is_silence(hypothesis):
            self.state = replace(self.state, seek=state.seek + size)
            return
        if self._language is None and not state.language_settled:
            yield self._settle_language()
        segments, advance = self._segments(hypothesis, state.seek, size)
        yield from self._emit(segments, state.seek + advance, hypothesis.temperature)

    def _emit(self, segments: list[Segment], seek: int, temperature: float) -> Iterator[Segment]:
        """Number the segments, and keep their tokens for the next prompt."""
        options, state = self._options, self.state
        found = [
            replace(emptied(segment), id=i) for i, segment in enumerate(segments, state.n_segments)
        ]
        recent = [*(state.recent or ()), *(token for segment in found for token in segment.tokens)]
        if not options.condition_on_previous_text or temperature > 0.5:
            recent = []
        self.state = replace(
            state,
            seek=seek,
            n_segments=state.n_segments + len(found),
            recent=tuple(recent[-self._model.decoder.max_prompt :]),
        )
        yield from found

    # language

    def _hear_language(self, encoded: Any, *, whole: bool) -> None:
        """Guess the language of this window, unless it is known."""
        state = self.state
        if self._language or (state.language_settled and self._options.language != AUTO_EACH):
            return
        if not whole:  # languages are told by what was trained: silence behind the audio
            heard = self._features.window(state.seek, silence=True)
            encoded = self._model.device.encode(heard)
        probabilities, _ = self._model.decoder.detect_language(encoded)
        best = max(probabilities, key=lambda code: probabilities[code])
        self.state = replace(
            state,
            language=best,
            language_probability=probabilities[best],
            language_settled=state.language_settled and best == state.language,
        )

    def _settle_language(self) -> Language:
        """This window holds speech: its language counts."""
        state = self.state
        self.state = replace(state, language_settled=True)
        assert state.language is not None  # noqa: S101  heard just now
        assert state.language_probability is not None  # noqa: S101
        start = state.seek / FRAMES_PER_SECOND
        return Language(state.language, state.language_probability, start)

    # decoding

    def _prompt(self) -> tuple[int, ...]:
        """What the decoder is told was said before: the fixed part first, then the latest."""
        most = self._model.decoder.max_prompt
        fixed = self._fixed_prompt[-most:]
        recent = self.state.recent or ()
        room = most - len(fixed)
        return fixed + (recent[-room:] if room > 0 else ())

    def _decode(self, encoded: Any) -> Hypothesis:
        """Decode at rising temperatures until the result is good, or take the last one."""
        options, state, tokenizer = self._options, self.state, self._model.tokenizer
        rng = np.random.default_rng([options.seed, state.seek])
        prefix: tuple[int, ...] = ()
        if options.prefix and state.seek == self._clips[0][0]:
            prefix = tuple(tokenizer.encode(f" {options.prefix.strip()}"))
        for temperature in options.temperatures:
            window_options = replace(
                options.at(temperature),
                language=self._language or state.language,
                prompt=self._prompt(),
                prefix=prefix,
            )
            hypothesis = self._model.decoder.decode(encoded, window_options, rng)
            if not self._has_failed(hypothesis):
                break
        return hypothesis

    def _guesses(self, hypothesis: Hypothesis) -> bool:
        least = self._options.logprob_threshold
        return least is not None and hypothesis.avg_logprob < least

    def _has_failed(self, hypothesis: Hypothesis) -> bool:
        most, silent = (
            self._options.compression_ratio_threshold,
            self._options.no_speech_threshold,
        )
        guesses = self._guesses(hypothesis)
        if silent is not None and hypothesis.no_speech_prob > silent and guesses:
            return False  # silence, not failure
        return guesses or (most is not None and hypothesis.compression_ratio > most)

    def _is_silence(self, hypothesis: Hypothesis) -> bool:
        silent, least = self._options.no_speech_threshold, self._options.logprob_threshold
        if silent is None or hypothesis.no_speech_prob <= silent:
            return False
        return least is None or hypothesis.avg_logprob <= least

    def _segments(self, hypothesis: Hypothesis, seek: int, size: int) -> tuple[list[Segment], int]:
        """Cut a hypothesis into segments; and the frames to the next window."""
        tokenizer = self._model.tokenizer
        offset = seek / FRAMES_PER_SECOND
        pieces, advance = cut(hypothesis.tokens, tokenizer.timestamp_begin, size)
        segments = [
            Segment(
                id=0,
                seek=seek,
                start=offset + start,
                end=offset + end,
                text=tokenizer.decode(tokens),
                tokens=tokens,
                temperature=hypothesis.temperature,
                avg_logprob=hypothesis.avg_logprob,
                compression_ratio=hypothesis.compression_ratio,
                no_speech_prob=hypothesis.no_speech_prob,
            )
            for start, end, tokens in pieces
        ]
        return segments, advance


Piece = tuple[float, float, tuple[int, ...]]  # start and end in seconds, tokens


def cut(tokens: tuple[int, ...], begin: int, size: int) -> tuple[list[Piece], int]:
    """Cut one window's tokens where two timestamps meet.

    tokens  as sampled; `begin` is the first timestamp token
    size    frames of the window that hold audio
    return  pieces, times from the beginning of the window; frames to the next window

    An unfinished piece at the end is dropped: the next window begins where the last whole one
    ends, and hears it again. Without a cut there is one piece, and the whole window is done.
    """
    is_time = [token >= begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    ends_in_silence = is_time[-2:] == [False, True]
    if not cuts:
        times = [token - begin for token in tokens if token >= begin]
        seconds = times[-1] * TIME_PRECISION if times and times[-1] else size / FRAMES_PER_SECOND
        return [(0.0, seconds, tokens)], size
    if ends_in_silence:
        cuts.append(len(tokens))
    pieces = []
    for a, b in pairwise([0, *cuts]):
        start, end = (max(0, token - begin) for token in (tokens[a], tokens[b - 1]))
        pieces.append((start * TIME_PRECISION, end * TIME_PRECISION, tokens[a:b]))
    if ends_in_silence:
        return pieces, size
    return pieces, (tokens[cuts[-1] - 1] - begin) * FRAMES_PER_TIMESTAMP or size


def emptied(segment: Segment) -> Segment:
    """Without its text when it has no length or only blanks: its place in time stays known."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    return replace(segment, text="", tokens=(), words=() if segment.words is not None else None)
