"""A recording -> the features that are transcribed: of all of it, or of the speech in it, or of
all of it with what is known of where somebody speaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from whisper_npu.audio import open_audio
from whisper_npu.features import WINDOW, log_mel
from whisper_npu.speech import Detector, SpeechOnly, Voiced, clips, spans, within

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.audio import Source
    from whisper_npu.features import LogMel
    from whisper_npu.options.transcription import TranscribeOptions

    Float = NDArray[np.float32]


class Features(Protocol):
    """The log-mel of one recording, as `features.LogMel` has it."""

    @property
    def n_frames(self) -> int:
        """Frames of 10 ms to be heard."""
        ...

    @property
    def duration(self) -> float:
        """Seconds of the recording."""
        ...

    def window(self, start: int, n_frames: int = WINDOW, *, silence: bool = False) -> Float:
        """(n_mels, 3000) float32: frames from `start`; behind n_frames zeros, or true silence."""
        ...


def listen(
    source: Source, n_mels: int, options: TranscribeOptions
) -> tuple[LogMel | Voiced | SpeechOnly, tuple[str, ...]]:
    """Features of a recording, and what is wrong with it. Raises AudioError, OptionError."""
    with open_audio(source) as audio:
        return hear(audio.blocks, n_mels, options), tuple(audio.warnings)


def hear(
    blocks: Iterable[Float], n_mels: int, options: TranscribeOptions
) -> LogMel | Voiced | SpeechOnly:
    """Features of a recording, or of the speech in it: blocks (S,) float32 at 16 kHz.

    Raises OptionError for a clip beyond the end, and what the blocks raise.
    """
    if not (options.vad or options.skip_silence):
        return log_mel(blocks, n_mels)
    detector = Detector(enough=None if options.vad else options.speech.threshold)
    features = log_mel(detector.pass_on(blocks), n_mels)
    if not options.vad:
        return Voiced(features, detector.probabilities, options.speech)
    found = spans(detector.probabilities, features.n_frames, options.speech)
    return SpeechOnly(features, within(found, clips(options.clip_timestamps, features.n_frames)))
