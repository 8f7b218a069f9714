"""One window's tokens -> pieces with times, and where the next window begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.tokenizer import TIME_PRECISION

if TYPE_CHECKING:
    from whisper_npu.transcript import Segment

FRAMES_PER_TIMESTAMP = 2

Piece = tuple[float, float, tuple[int, ...]]  # start and end in seconds, tokens


@dataclass(frozen=True)
class Cut:
    """One window's tokens in pieces, times from the beginning of the window."""

    pieces: list[Piece]
    advance: int  # frames to the next window
    ends_in_silence: bool  # nothing more is said in this window


def cut(tokens: tuple[int, ...], begin: int, size: int) -> Cut:
    """Cut one window's tokens where two timestamps meet.

    tokens  as sampled; `begin` is the first timestamp token
    size    frames of the window that hold audio

    An unfinished piece at the end is dropped: the next window begins where the last whole one
    ends, and hears it again. Without a cut there is one piece, and the whole window is done.
    """
    is_time = [token >= begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    ends_in_silence = is_time[-2:] == [False, True]
    if not cuts:
        times = [token - begin for token in tokens if token >= begin]
        seconds = times[-1] * TIME_PRECISION if times and times[-1] else size / FRAMES_PER_SECOND
        return Cut([(0.0, seconds, tokens)], size, ends_in_silence)
    if ends_in_silence:
        cuts.append(len(tokens))
    pieces = []
    for a, b in pairwise([0, *cuts]):
        start, end = (max(0, token - begin) for token in (tokens[a], tokens[b - 1]))
        pieces.append((start * TIME_PRECISION, end * TIME_PRECISION, tokens[a:b]))
    heard = (tokens[cuts[-1] - 1] - begin) * FRAMES_PER_TIMESTAMP
    return Cut(pieces, size if ends_in_silence else heard or size, ends_in_silence)


def inside(segments: list[Segment], end: float) -> list[Segment]:
    """The segments that begin before `end`, the end of the audio in seconds, and end there at last.

    What a decoder goes on to say in the silence behind the audio is invented; openai/whisper
    keeps it.
    """
    return [ended(segment, end) for segment in segments if segment.start < end]


def ended(segment: Segment, end: float) -> Segment:
    """The segment and its words, at an end by then."""
    words = segment.words and tuple(
        replace(word, start=min(word.start, end), end=min(word.end, end)) for word in segment.words
    )
    return replace(segment, end=min(segment.end, end), words=words)


def emptied(segment: Segment) -> Segment:
    """Without its text when it has no length or only blanks: its place in time stays known."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    words, aligned = (
        () if timed is not None else None for timed in (segment.words, segment.aligned)
    )
    return replace(segment, text="", tokens=(), words=words, aligned=aligned)
