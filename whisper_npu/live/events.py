"""What a stream tells, in seconds since it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from whisper_npu.events import Language
from whisper_npu.records import event_record, word_record
from whisper_npu.transcript import Segment, Word  # noqa: TC001  a union needs them when it runs


def _text(words: tuple[Word, ...]) -> str:
    return "".join(word.text for word in words)


@dataclass(frozen=True)
class Final:
    """Words that will not change, behind all final words before.

    A punctuation mark that is heard later than its word is a word of its own here; in the segment
    it is a part of the word.
    """

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words, with the blanks between them."""
        return _text(self.words)


@dataclass(frozen=True)
class Tentative:
    """What seems to follow the last final word; each one takes the place of the one before.

    Empty when nothing follows, or nothing any more.
    """

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words, with the blanks between them."""
        return _text(self.words)


@dataclass(frozen=True)
class SegmentDone:
    """A sentence, or what was said up to a pause: final words as one segment."""

    segment: Segment


LiveEvent = Final | Tentative | SegmentDone | Language


def live_record(event: LiveEvent) -> dict[str, Any]:
    """An event as JSON knows it."""
    if isinstance(event, SegmentDone):
        return event_record(event.segment)
    if isinstance(event, Language):
        return event_record(event)
    name = "final" if isinstance(event, Final) else "tentative"
    return {"event": name, "text": event.text, "words": [word_record(w) for w in event.words]}


class Shows(Protocol):
    """Where words are shown, as `terminal.Captions` does it."""

    def final(self, text: str) -> None: ...

    def tentative(self, text: str) -> None: ...

    def segment(self, text: str) -> None: ...


def show(event: LiveEvent, captions: Shows) -> None:
    """Show an event to people."""
    if isinstance(event, Final):
        captions.final(event.text)
    elif isinstance(event, Tentative):
        captions.tentative(event.text)
    elif isinstance(event, SegmentDone):
        captions.segment(event.segment.text)
