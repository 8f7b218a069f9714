"""What is told while a recording is transcribed, and the state that goes on where it ended."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_npu.transcript import Segment


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
