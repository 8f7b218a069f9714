"""How a recording is transcribed: every choice, checked before any model is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whisper_npu.errors import OptionError
from whisper_npu.languages import language_code
from whisper_npu.options.decoding import DecodingOptions
from whisper_npu.options.option import (
    FALLBACK,
    PROMPTS,
    SEARCH,
    SPEECH,
    SUBTITLES,
    check,
    number_or_none,
    numbers,
    option,
    whole_numbers,
)
from whisper_npu.options.speech import SpeechOptions, require_detector

AUTO, AUTO_EACH = "auto", "auto-each"  # languages: one per recording, one per window
NUMBER_OR_NONE = "NUMBER|none"
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001  full-width marks are meant


def task_option() -> str:
    """What to write, of recordings and of streams."""
    return option(
        "transcribe",
        "transcribe: write what is said; translate: write it in English.",
        SPEECH,
        choices=("transcribe", "translate"),
    )


def vad_threshold_option() -> float:
    """What counts as a voice, of recordings and of streams."""
    return option(
        0.5,
        "Take a sound for speech if the detector gives it at least this probability, from 0 to 1.",
        SPEECH,
        least=0,
        most=1,
    )


@dataclass(frozen=True)
class TranscribeOptions:
    """How a recording is transcribed. Raises OptionError when the options contradict each other."""

    task: str = task_option()
    language: str = option(
        AUTO,
        "Language that is spoken, as a code or an English name: de or German. auto: detect it "
        "once for each recording; auto-each: detect it again for every 30 seconds.",
        SPEECH,
        short="-l",
    )
    skip_silence: bool = option(
        False,
        "Do not transcribe long silence, where a model may invent text: windows of 30 seconds in "
        "which no voice is detected, and the silence at both ends of the others.",
        SPEECH,
        typed=True,
    )
    vad: bool = option(
        False,
        "Transcribe only the parts where a voice is detected (voice activity detection), and cut "
        "out the pauses between them, too; --skip-silence leaves those within a window.",
        SPEECH,
    )
    vad_threshold: float = vad_threshold_option()
    vad_min_speech_duration_ms: float = option(
        0.0, "Ignore speech shorter than this many milliseconds.", SPEECH, least=0
    )
    vad_min_silence_duration_ms: float = option(
        2000.0, "Ignore pauses shorter than this many milliseconds.", SPEECH, least=0
    )
    vad_speech_pad_ms: float = option(
        400.0, "Keep this many milliseconds of sound before and after speech.", SPEECH, least=0
    )
    clip_timestamps: tuple[float, ...] = option(
        (0.0,),
        "Parts of the recording to transcribe, in seconds; the last end may be left out.",
        SPEECH,
        read=numbers,
        metavar="START,END,...",
        least=0,
        rises=True,
    )
    temperature: tuple[float, ...] = option(
        (0.0,),
        "How far to depart from the likeliest text: at 0 not at all, above 0 tokens are drawn at "
        "random. Several rising numbers, such as 0,0.4,0.8, are tried in turn while the text "
        "repeats itself or is improbable.",
        SEARCH,
        read=numbers,
        metavar="NUMBER,...",
        least=0,
        rises=True,
    )
    beam_size: int | None = option(
        None,
        "Number of candidate texts to follow at temperature 0; 1 is greedy search: faster, with "
        "more errors.",
        SEARCH,
        least=1,
        typed=5,
    )
    best_of: int = option(
        5, "Number of texts to draw above temperature 0; the likeliest is kept.", SEARCH, least=1
    )
    patience: float | None = option(
        None,
        "Beam search ends when it has this many times --beam-size finished texts; without this "
        "option, once as many.",
        SEARCH,
    )
    length_penalty: float | None = option(
        None,
        "How strongly longer candidates are favoured when candidates are compared, from 0 to 1; "
        "without this option, the average over the tokens of each decides.",
        SEARCH,
        least=0,
        most=1,
    )
    sample_len: int | None = option(
        None,
        "Largest number of tokens in the text of a window; without this option, half of the "
        "model's room for text (224 tokens).",
        SEARCH,
        least=1,
    )
    suppress_tokens: tuple[int, ...] = option(
        (-1,),
        "Numbers of the tokens that must not be used; -1 stands for all symbols that are not "
        "speech, such as brackets and musical notes.",
        SEARCH,
        read=whole_numbers,
        metavar="NUMBER,...",
    )
    suppress_blank: bool = option(
        True, "Do not let the text of a window begin with a blank, or be empty.", SEARCH
    )
    without_timestamps: bool = option(
        False, "Produce text without times, as one segment for every 30 seconds.", SEARCH
    )
    max_initial_timestamp: float | None = option(
        1.0,
        "Latest time in a window, in seconds, at which its first segment may begin; none: no "
        "limit.",
        SEARCH,
        read=number_or_none,
        metavar=NUMBER_OR_NONE,
    )
    seed: int = option(
        0,
        "Start of the random numbers used above temperature 0; the same seed gives the same text.",
        SEARCH,
        least=0,
    )
    temperature_increment_on_fallback: float | None = option(
        0.2,
        "When the text repeats itself or is improbable, try again with this much more "
        "temperature, up to 1, unless --temperature has several numbers; none: do not try again.",
        FALLBACK,
        above=0,
        read=number_or_none,
        metavar=NUMBER_OR_NONE,
    )
    compression_ratio_threshold: float | None = option(
        2.4,
        "A window fails when its text can be compressed by more than this factor, because it "
        "repeats itself; none: do not check.",
        FALLBACK,
        read=number_or_none,
        metavar=NUMBER_OR_NONE,
    )
    logprob_threshold: float | None = option(
        -1.0,
        "A window fails when the average log-probability of its tokens is below this; none: do "
        "not check.",
        FALLBACK,
        read=number_or_none,
        metavar=NUMBER_OR_NONE,
    )
    no_speech_threshold: float | None = option(
        0.6,
        "A window whose log-probability fails is taken for silence if the probability of no "
        "speech is above this; none: never.",
        FALLBACK,
        read=number_or_none,
        metavar=NUMBER_OR_NONE,
    )
    initial_prompt: str | None = option(
        None, "Text that comes before the first window, such as names or a spelling.", PROMPTS
    )
    carry_initial_prompt: bool = option(
        False,
        "Use --initial-prompt before every window, not only the first.",
        PROMPTS,
        needs="initial_prompt",
    )
    hotwords: str | None = option(
        None, "Words to expect in the recording, given to the model before every window.", PROMPTS
    )
    prefix: str | None = option(None, "Text that the first window is made to begin with.", PROMPTS)
    condition_on_previous_text: bool = option(
        True,
        "Let the model see the text of the window before. Without it the text is less coherent, "
        "and mistakes are not repeated.",
        PROMPTS,
    )
    word_timestamps: bool = option(False, "Find out when each word is spoken.", SUBTITLES)
    prepend_punctuations: str = option(
        PREPENDED, "Punctuation marks that belong to the word after them.", SUBTITLES
    )
    append_punctuations: str = option(
        APPENDED, "Punctuation marks that belong to the word before them.", SUBTITLES
    )
    hallucination_silence_threshold: float | None = option(
        None,
        "Skip silences longer than this many seconds around text that seems invented; needs "
        "--word-timestamps.",
        SUBTITLES,
        needs="word_timestamps",
    )

    align_words: bool = False  # word times beside the segments, which stay as they are

    def __post_init__(self) -> None:
        check(self)
        if self.language not in (AUTO, AUTO_EACH):
            language_code(self.language)
        if not self.temperature:
            raise OptionError("temperature needs one number at the least", "temperature")
        if self.patience is not None:
            self._check_patience(self.patience, self.beam_size or 1)
        if self.vad or self.skip_silence:
            require_detector()

    def _check_patience(self, patience: float, beams: int) -> None:
        if beams == 1:
            raise OptionError("patience needs a beam_size of 2 or more", "patience", "beam_size")
        if round(beams * patience) < 1:
            raise OptionError(f"patience: {patience:g} leaves no candidate to wait for", "patience")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """What is tried in turn: the temperatures given, or from one of them up to 1."""
        first, step = self.temperature[0], self.temperature_increment_on_fallback
        if len(self.temperature) > 1 or step is None:
            return self.temperature
        n = max(1, math.ceil((1 + 1e-6 - first) / step))
        return tuple(first + i * (first + step - first) for i in range(n))

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
        """Options for one window at one temperature; beams are for 0, samples for above."""
        sampling = temperature > 0
        beams = self.beam_size if self.beam_size != 1 and not sampling else None
        return DecodingOptions(
            task=self.task,
            temperature=temperature,
            best_of=self.best_of if sampling else None,
            beam_size=beams,
            patience=self.patience if beams else None,
            length_penalty=self.length_penalty,
            sample_len=self.sample_len,
            suppress_tokens=self.suppress_tokens,
            suppress_blank=self.suppress_blank,
            without_timestamps=self.without_timestamps,
            max_initial_timestamp=self.max_initial_timestamp,
        )


DEFAULT = TranscribeOptions()
