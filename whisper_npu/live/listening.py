"""A source of sound through a stream, and the transcript that is kept of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from whisper_npu.errors import AudioError, OutputError
from whisper_npu.events import Language
from whisper_npu.live.events import SegmentDone
from whisper_npu.transcript import Segment, Transcript
from whisper_npu.writers import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.live.events import LiveEvent
    from whisper_npu.live.inputs import Sound
    from whisper_npu.live.stream import SpeechStream
    from whisper_npu.options import SubtitleOptions
    from whisper_npu.options.live import ListenOptions

_OFTEN = 10.0  # seconds between two writings of the same files


def words_of(stream: SpeechStream, sound: Sound) -> Iterator[LiveEvent]:
    """All that is told of a sound until it ends. Raises AudioError, behind what was heard."""
    failure: AudioError | None = None
    try:
        for block in sound.blocks:
            yield from stream.feed(block, behind=sound.behind())
    except AudioError as error:
        failure = error
    yield from stream.finish()
    if failure:
        raise failure


class Kept:
    """The transcript so far, in files that are always whole: folder/name.format of each format.

    say  hears, once, that the files cannot be written at the moment
    """

    def __init__(
        self,
        options: ListenOptions,
        subtitles: SubtitleOptions,
        device: DeviceInfo,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._name = options.output_name or time.strftime("%Y-%m-%d %H.%M.%S")
        self._subtitles = subtitles
        self._device = device
        self._say = say
        self._segments: list[Segment] = []
        self._language: Language | None = None
        self._written = time.monotonic()
        self._complained = False

    def hear(self, event: LiveEvent, stream: SpeechStream) -> None:
        """Keep a segment, and write now and then."""
        if self._options.output_dir is None:
            return
        if isinstance(event, Language):
            self._language = event
        if not isinstance(event, SegmentDone):
            return
        self._segments.append(event.segment)
        if time.monotonic() - self._written < _OFTEN:
            return
        try:
            self.write(stream)
        except OutputError as error:
            if not self._complained:
                self._say(f"whisper-npu: {error}; it is tried again")
            self._complained = True

    def write(self, stream: SpeechStream) -> list[Path]:
        """Write what there is. Raises OutputError."""
        self._written = time.monotonic()
        folder, formats = self._options.output_dir, self._options.output_format
        if folder is None:
            return []
        transcript = Transcript(
            text="".join(segment.text for segment in self._segments),
            segments=tuple(self._segments),
            language=stream.language or "en",
            language_probability=self._language.probability if self._language else None,
            duration=stream.seconds,
            device=self._device.name,
            origin=self._device.origin,
        )
        return write_all(transcript, folder, self._name, formats, self._subtitles)
