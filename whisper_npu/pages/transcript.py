"""A transcript -> a page to listen and read along: words follow the sound and can be jumped to."""

from __future__ import annotations

import base64
import mimetypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from whisper_npu.pages import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whisper_npu.transcript import Segment, Transcript, Word

UNSURE = 0.5  # a word heard with less probability than this is marked
EMBEDDED = 16 << 20  # bytes; a larger recording is linked, not carried in the page


def page(transcript: Transcript, title: str, audio: str | None = None) -> str:
    """HTML of one recording.

    title  for people, such as the file's name
    audio  where the player finds the sound, from `audio_source`; None: the reader chooses a file
    """
    words = [word for segment in transcript.segments for word in timed(segment)]
    details = [position(transcript.duration), f"language {transcript.language}"]
    if transcript.language_probability is not None:
        details[1] += f" ({transcript.language_probability:.0%} sure)"
    if transcript.origin != "measured":
        details.append(transcript.device)
    return render(
        "transcript",
        title=title,
        details=", ".join(details),
        audio=audio,
        language=transcript.language,
        n_unsure=sum(word.probability < UNSURE for word in words),
        segments=[_paragraph(segment) for segment in transcript.segments if segment.text.strip()],
    )


def audio_source(recording: Path, folder: Path) -> str | None:
    """What a page in `folder` plays: the recording itself, or a link where that is large.

    None: it cannot be read, or not again.
    """
    try:
        if not recording.is_file():
            return None
        if recording.stat().st_size > EMBEDDED:
            return quote(os.fsencode(os.path.relpath(recording, folder)))
        content = base64.b64encode(recording.read_bytes()).decode()
    except OSError:
        return None
    kind = mimetypes.guess_type(recording.name)[0] or "audio/wav"
    return f"data:{kind};base64,{content}"


def timed(segment: Segment) -> Sequence[Word]:
    """The words whose times are known."""
    return segment.words or segment.aligned or ()


def position(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


@dataclass(frozen=True)
class _Word:
    before: str  # blanks, kept out of the marks
    text: str
    start: float
    unsure: bool
    percent: int


@dataclass(frozen=True)
class _Paragraph:
    text: str
    start: float
    position: str
    words: Sequence[_Word] | None


def _paragraph(segment: Segment) -> _Paragraph:
    words = [_word(word) for word in timed(segment)] or None
    return _Paragraph(segment.text.strip(), segment.start, position(segment.start), words)


def _word(word: Word) -> _Word:
    text = word.text.lstrip()
    before = word.text[: len(word.text) - len(text)]
    return _Word(before, text, word.start, word.probability < UNSURE, round(100 * word.probability))
