"""One recording -> segments, window by window: seek, fallback, prompts, languages.

A window is 30 s; where the next one begins depends on what was heard in this one. Nothing of a
recording is held but its features and the last few hundred tokens. Source of the rules:
openai/whisper transcribe.py.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.audio import name_of
from whisper_npu.decoding import Decoder, has_failed, is_silence
from whisper_npu.errors import ModelError
from whisper_npu.events import Language, State, WindowDone
from whisper_npu.features import FRAMES_PER_SECOND, WINDOW
from whisper_npu.languages import language_code
from whisper_npu.listening import hear, listen
from whisper_npu.options.transcription import AUTO, AUTO_EACH, DEFAULT, TranscribeOptions
from whisper_npu.pieces import Cut, cut, emptied, ended, inside
from whisper_npu.speech import SpeechOnly, Voiced, clips
from whisper_npu.stages import stage
from whisper_npu.timing import (
    Punctuation,
    Span,
    align,
    drop_hallucinations,
    end_of_speech,
    place_words,
)
from whisper_npu.tokenizer import Tokenizer
from whisper_npu.transcript import Segment, Transcript
from whisper_npu.translation import require_translation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from whisper_npu.audio import Source
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.decoding import Hypothesis
    from whisper_npu.devices.device import Device
    from whisper_npu.events import Event
    from whisper_npu.listening import Features
    from whisper_npu.live.stream import SpeechStream
    from whisper_npu.options.live import StreamOptions

    Float = NDArray[np.float32]

_log = logging.getLogger(__name__)

# frames behind the sound in a window shorter than 30 s: right at the end of what it was given, the
# decoder begins to repeat itself (128 positions of the encoder, as in whisper.cpp's trials)
MARGIN = 256


class Model:
    """An opened model: weights, vocabulary and the device that runs it.

    Raises ModelError when the parts do not belong together or hear other windows than of 30 s.
    """

    def __init__(self, checkpoint: Checkpoint, device: Device) -> None:
        frames = 2 * checkpoint.dims.n_audio_ctx  # the second convolution halves them
        if frames != WINDOW:
            raise ModelError(
                f"{checkpoint.path} hears windows of {frames / FRAMES_PER_SECOND:g} s; "
                "only models for windows of 30 s can transcribe"
            )
        self.checkpoint = checkpoint
        self.device = device
        self.tokenizer = Tokenizer(checkpoint)
        self.decoder = Decoder(device, self.tokenizer, checkpoint.dims.n_text_ctx)

    def open(
        self, audio: Source | Float, options: TranscribeOptions, state: State | None = None
    ) -> Transcription:
        """Read a recording (path, "-", binary file or samples at 16 kHz) and get ready.

        Raises AudioError, OptionError.
        """
        n_mels = self.checkpoint.dims.n_mels
        if isinstance(audio, np.ndarray):
            return Transcription(self, hear([audio], n_mels, options), options, state)
        features, warnings = listen(audio, n_mels, options)
        for warning in warnings:
            _log.warning("%s: %s", name_of(audio), warning)
        return Transcription(self, features, options, state)

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

    def stream(self, options: StreamOptions | None = None) -> SpeechStream:
        """Begin to transcribe sound while it is made. Raises OptionError."""
        from whisper_npu.live.stream import SpeechStream

        return SpeechStream(self, options)

    def close(self) -> None:
        """Give the device back."""
        self.device.close()

    def __enter__(self) -> Model:  # noqa: PYI034  no Self in Python 3.10
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
        self._packed = features if isinstance(features, SpeechOnly) else None
        whole = [(0, features.n_frames)]
        self._clips = whole if self._packed else clips(options.clip_timestamps, features.n_frames)
        self._language = self._fixed_language()
        self._fixed_prompt, first = self._prompts()
        if self.state.recent is None:
            self.state = replace(self.state, recent=first)

    def _fixed_language(self) -> str | None:
        """The language that needs no detection."""
        if self._options.task == "translate":
            require_translation(self._model.checkpoint)
        asked = self._options.language
        code = None if asked in (AUTO, AUTO_EACH) else language_code(asked)
        if not self._model.tokenizer.multilingual:
            if code not in (None, "en"):
                _log.warning("the model knows only English: taking %r as English", asked)
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
                yield from self._model.checkpoint.while_unchanged(self._window(end))
                # a timestamp may lie beyond the clip; the next clip begins where it begins
                self.state = replace(self.state, seek=min(self.state.seek, end))
                yield WindowDone(self._seconds(self.state.seek), self.state)

    def _seconds(self, frame: int) -> float:
        """Where a frame is in the recording."""
        seconds = min(frame, self._features.n_frames) / FRAMES_PER_SECOND
        return self._packed.seconds(seconds, ending=True) if self._packed else seconds

    def transcript(self, segments: list[Segment]) -> Transcript:
        """All that was found as one result."""
        return Transcript(
            text=self._model.tokenizer.decode(t for found in segments for t in found.tokens),
            segments=tuple(segments),
            language=self._language or self.state.language or "en",
            language_probability=self.state.language_probability,
            duration=self._features.duration,
            device=self._model.device.info.name,
            origin=self._model.device.info.origin,
        )

    @stage("encoder")
    def _encode(self, mel: Float) -> Any:
        return self._model.device.encode(mel)

    def _window(self, clip_end: int) -> Iterator[Event]:
        """Transcribe the window at the state's seek, and move the state behind it."""
        state = self.state
        size = min(WINDOW, self._features.n_frames - state.seek, clip_end - state.seek)
        if isinstance(self._features, Voiced):
            first, last = self._features.part(state.seek, size)
            if first > state.seek:  # the next window begins there
                self.state = replace(state, seek=first)
                return
            size = last - first
        encoded, hypothesis = self._hear(size)
        if is_silence(hypothesis, self._options):
            self.state = replace(self.state, seek=state.seek + size)
            return
        if self._language is None and not self.state.language_settled:
            yield self._settle_language()
        pieces = cut(hypothesis.tokens, self._model.tokenizer.timestamp_begin, size)
        end = (state.seek + size) / FRAMES_PER_SECOND
        segments = inside(self._segments(hypothesis, pieces, state.seek), end)
        seek = state.seek + min(pieces.advance, size)
        trusted: list[Segment] | None = segments
        if self._options.word_timestamps:
            segments = self._with_words(encoded, segments, size)
            trusted, seek = self._trusted(segments, pieces, seek, size)
        elif self._options.align_words:
            trusted = self._with_words_beside(encoded, segments, size)
        if trusted is None:
            self.state = replace(self.state, seek=seek)
        else:
            yield from self._emit(trusted, seek, hypothesis.temperature)

    def _hear(self, size: int) -> tuple[Any, Hypothesis]:
        """Encode and decode so many frames of a window; in a shorter one where that goes well."""
        options = self._options
        mel = self._features.window(self.state.seek, size)
        short = min(WINDOW, size + size % 2 + MARGIN)
        if self._model.device.info.short_windows and short < WINDOW:
            encoded = self._encode(mel[:, :short])
            self._hear_language(encoded, short, whole=False)
            hypothesis = self._decode(encoded, options.temperatures[:1])
            if not (has_failed(hypothesis, options) or is_silence(hypothesis, options)):
                return encoded, hypothesis
        encoded = self._encode(mel)
        self._hear_language(encoded, WINDOW, whole=size == WINDOW)
        return encoded, self._decode(encoded, options.temperatures)

    def _emit(self, segments: list[Segment], seek: int, temperature: float) -> Iterator[Segment]:
        """Number the segments, and keep their tokens for the next prompt."""
        options, state = self._options, self.state
        language = state.language if options.language == AUTO_EACH else None
        found = [
            replace(emptied(segment), id=i, language=language)
            for i, segment in enumerate(segments, state.n_segments)
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
        for segment in found:
            yield self._packed.place(segment) if self._packed else segment

    # language

    def _hear_language(self, encoded: Any, n_frames: int, *, whole: bool) -> None:
        """Guess the language of this window of so many frames, unless it is known."""
        state = self.state
        if self._language or (state.language_settled and self._options.language != AUTO_EACH):
            return
        if not whole:  # languages are told by what was trained: silence behind the audio
            heard = self._features.window(state.seek, silence=True)
            encoded = self._encode(heard[:, :n_frames])
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
        return Language(state.language, state.language_probability, self._seconds(state.seek))

    # decoding

    def _prompt(self) -> tuple[int, ...]:
        """What the decoder is told was said before: the fixed part first, then the latest."""
        most = self._model.decoder.max_prompt
        fixed = self._fixed_prompt[-most:]
        recent = self.state.recent or ()
        room = most - len(fixed)
        return fixed + (recent[-room:] if room > 0 else ())

    def _decode(self, encoded: Any, temperatures: Sequence[float]) -> Hypothesis:
        """Decode at rising temperatures until the result is good, or take the last one."""
        options, state, tokenizer = self._options, self.state, self._model.tokenizer
        rng = np.random.default_rng([options.seed, state.seek])
        prefix: tuple[int, ...] = ()
        if options.prefix and not state.n_segments:
            prefix = tuple(tokenizer.encode(f" {options.prefix.strip()}"))
        for temperature in temperatures:
            window_options = replace(
                options.at(temperature),
                language=self._language or state.language,
                prompt=self._prompt(),
                prefix=prefix,
            )
            hypothesis = self._model.decoder.decode(encoded, window_options, rng)
            if not has_failed(hypothesis, options):
                break
        return hypothesis

    def _segments(self, hypothesis: Hypothesis, found: Cut, seek: int) -> list[Segment]:
        tokenizer = self._model.tokenizer
        offset = seek / FRAMES_PER_SECOND
        return [
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
            for start, end, tokens in found.pieces
        ]

    # words

    def _with_words(self, encoded: Any, segments: list[Segment], size: int) -> list[Segment]:
        """Give each segment its words, and the times of the words to the segment."""
        model, options, state = self._model, self._options, self.state
        language = self._language or state.language
        words = align(
            model.device,
            encoded,
            model.tokenizer,
            sot=model.tokenizer.sot_sequence(language, options.task),
            text=[t for segment in segments for t in segment.tokens if t < model.tokenizer.eot],
            n_frames=size,
            language=language if model.tokenizer.multilingual else None,
        )
        marks = Punctuation(options.prepend_punctuations, options.append_punctuations)
        placed = place_words(segments, words, model.tokenizer.eot, state.last_speech, marks)
        end = (state.seek + size) / FRAMES_PER_SECOND
        return [ended(segment, end) for segment in placed]

    def _with_words_beside(self, encoded: Any, segments: list[Segment], size: int) -> list[Segment]:
        """The segments as they are, and the words that pages and cues need beside them."""
        timed = self._with_words(encoded, segments, size)
        if (last := end_of_speech(timed)) is not None:
            self.state = replace(self.state, last_speech=last)
        return [
            replace(segment, aligned=fitted.words)
            for segment, fitted in zip(segments, timed, strict=True)
        ]

    def _trusted(
        self, segments: list[Segment], found: Cut, seek: int, size: int
    ) -> tuple[list[Segment] | None, int]:
        """Go on after the last word, and leave out what may be hallucinated.

        Returns the segments, None to hear the window again from where to go on; and the frame.
        """
        state, threshold = self.state, self._options.hallucination_silence_threshold
        start = state.seek / FRAMES_PER_SECOND
        window_end = (state.seek + WINDOW) / FRAMES_PER_SECOND
        kept: list[Segment] | None = segments
        end = end_of_speech(segments)
        if not found.ends_in_silence and end is not None and end > start:
            seek = round(end * FRAMES_PER_SECOND)
            if threshold is not None and window_end - end <= threshold:
                seek = state.seek + size
        if threshold is not None:
            audio_end = (state.seek + size) / FRAMES_PER_SECOND
            recording_end = self._features.n_frames / FRAMES_PER_SECOND
            span = Span(start, audio_end, window_end, recording_end)
            kept, again = drop_hallucinations(segments, span, threshold, state.last_speech)
            seek = seek if again is None else round(again * FRAMES_PER_SECOND)
        if kept and (end := end_of_speech(kept)) is not None:
            self.state = replace(state, last_speech=end)
        return kept, seek
