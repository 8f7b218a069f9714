"""Segments and events as JSON knows them, in openai/whisper's keys."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from whisper_npu.events import Language
from whisper_npu.transcript import Segment

if TYPE_CHECKING:
    from whisper_npu.events import Event
    from whisper_npu.transcript import Word


def event_record(event: Event) -> dict[str, Any]:
    """The JSON of a segment, a language or progress."""
    if isinstance(event, Segment):
        return {"event": "segment", **segment_record(event)}
    if isinstance(event, Language):
        return {"event": "language", "language": event.code, "probability": event.probability}
    return {"event": "progress", "seconds": event.seconds}


def segment_record(segment: Segment) -> dict[str, Any]:
    """A segment as JSON knows it."""
    record: dict[str, Any] = {
        "id": segment.id,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": finite(segment.temperature),
        "avg_logprob": finite(segment.avg_logprob),
        "compression_ratio": finite(segment.compression_ratio),
        "no_speech_prob": finite(segment.no_speech_prob),
    }
    if segment.words is not None:
        record["words"] = [word_record(word) for word in segment.words]
    if segment.language is not None:
        record["language"] = segment.language
    return record


def word_record(word: Word) -> dict[str, Any]:
    """A word as JSON knows it."""
    return {
        "word": word.text,
        "start": word.start,
        "end": word.end,
        "probability": finite(word.probability),
    }


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
