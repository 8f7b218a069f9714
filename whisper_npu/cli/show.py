"""What a batch says while it runs: the transcript on stdout, the rest on stderr."""

from __future__ import annotations

import sys
import time
from json import dumps
from typing import TYPE_CHECKING

from whisper_npu.batch.recordings import STDIN
from whisper_npu.batch.report import DONE
from whisper_npu.errors import OptionError
from whisper_npu.events import WindowDone
from whisper_npu.messages import printable
from whisper_npu.records import event_record
from whisper_npu.terminal import ProgressBar, console, stage_table
from whisper_npu.transcript import Segment
from whisper_npu.writers import FORMATS, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisper_npu.batch.recordings import Recording
    from whisper_npu.batch.report import Report, Result
    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.events import Event
    from whisper_npu.figures import Origin
    from whisper_npu.options import BatchOptions, SubtitleOptions
    from whisper_npu.transcript import Transcript


def form(n_recordings: int, options: BatchOptions, *, json: bool, watch: bool) -> str:
    """What stdout gets: a format, "jsonl" (every event), or "" (there are files).

    Raises OptionError.
    """
    if json:
        return "jsonl"
    if options.output_dir is not None:
        return ""
    if watch:
        raise OptionError("--watch needs a folder: -o FOLDER")
    if len(options.output_format) > 1:
        raise OptionError("several formats need a folder: -o FOLDER")
    if options.output_format != ("txt",) and n_recordings > 1:
        raise OptionError(
            f"{options.output_format[0]} of several recordings needs a folder: -o FOLDER"
        )
    return options.output_format[0]


class Show:
    """A `batch.Listener`: one bar over seconds of audio; off a terminal, a line for each of many.

    shown   what stdout gets, as `form` says
    live    whether text is shown as it is heard: with one worker it cannot be mixed up
    """

    def __init__(
        self, recordings: Sequence[Recording], shown: str, subtitles: SubtitleOptions, *, live: bool
    ) -> None:
        self._form = shown
        self._subtitles = subtitles
        self._live = live and shown == "txt"
        self._bytes = {recording: _size(recording) for recording in recordings}
        self._bytes_left = sum(self._bytes.values())
        self._bytes_seen = 0
        self._seconds_seen = 0.0  # of audio, in the recordings begun
        self._seconds_done = 0.0
        self._last: dict[Recording, float] = {}
        self._began = time.monotonic()
        self._worked = 0.0
        self._device = ""  # where it is no real one
        self._origin: Origin = "measured"
        self._bar = ProgressBar()

    def opened(self, device: DeviceInfo) -> None:
        """Announce an emulated device."""
        emulated = device.name if device.origin != "measured" else ""
        if emulated and emulated != self._device:
            self._say(f"whisper-npu: {emulated}")
        self._device, self._origin = emulated, device.origin

    def started(self, recording: Recording, seconds: float, done: float) -> None:
        """A recording begins: its length is known now, that of the others is guessed by size."""
        if recording not in self._last:  # a board that was lost may have begun it, too
            self._begin(recording, seconds)
        self._advance(recording, done)

    def heard(self, recording: Recording, event: Event) -> None:
        """Show what was heard."""
        if self._form == "jsonl":
            device = {"device": self._device} if self._device else {}
            self._print(dumps({"input": str(recording.path), **event_record(event), **device}))
        elif self._live and isinstance(event, Segment) and event.text.strip():
            self._print(line(event.text))
        if isinstance(event, WindowDone):
            self._worked += event.seconds - self._last.get(recording, 0.0)
            self._advance(recording, event.seconds)

    def finished(self, recording: Recording, result: Result, transcript: Transcript | None) -> None:
        """Show what became of a recording."""
        if recording not in self._last:
            self._begin(recording, result.seconds)
        if result.status == DONE:
            self._advance(recording, result.seconds)
        if transcript and self._form in FORMATS and not self._live:
            text = FORMATS[self._form](transcript, self._subtitles)
            self._print(text.removesuffix("\n"))
        for warning in result.warnings:
            self._say(f"warning  {result.recording}: {warning}")
        if not self._bar.is_shown and len(self._bytes) != 1:
            self._say(result_line(result))

    def close(self) -> None:
        """Leave the terminal tidy."""
        self._bar.close()

    def _begin(self, recording: Recording, seconds: float) -> None:
        size = self._bytes.get(recording, 0)
        self._last[recording] = 0.0
        self._bytes_left -= size
        if seconds:
            self._bytes_seen += size
            self._seconds_seen += seconds

    def _advance(self, recording: Recording, seconds: float) -> None:
        self._seconds_done += max(0.0, seconds - self._last[recording])
        self._last[recording] = seconds
        guess = self._bytes_left * self._seconds_seen / max(1, self._bytes_seen)
        note = ""
        if self._worked:
            rtf = (time.monotonic() - self._began) / self._worked
            note = f"RTF {_ratio(rtf, self._origin)}"
        self._bar.update(self._seconds_done, self._seconds_seen + guess, note)

    def _print(self, text: str) -> None:
        with self._bar.hidden():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _say(self, text: str) -> None:
        with self._bar.hidden():
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def result_line(result: Result) -> str:
    """What became of a recording, for people."""
    if result.status != DONE:
        return f"{result.status:<8} {result.recording}: {result.reason}"
    rtf = ""
    if result.seconds:
        rtf = f", RTF {_ratio(result.elapsed / result.seconds, result.origin)}"
    outputs = ": " + ", ".join(map(printable, result.outputs)) if result.outputs else ""
    return f"{result.status:<8} {result.recording} ({result.seconds:.1f} s{rtf}){outputs}"


def tell_timings(report: Report) -> None:
    """Print how long each stage took."""
    from whisper_npu.figures import Figure

    seconds = {stage: Figure(spent, "s", report.origin) for stage, spent in report.stages.items()}
    console(stderr=True).print(stage_table([(report.device, seconds)]))


def _ratio(value: float, word: Origin) -> str:
    return f"{value:.2f}" if word == "measured" else f"{value:.2f} {word}"


def _size(recording: Recording) -> int:
    try:
        return 0 if recording.path == STDIN else recording.path.stat().st_size
    except (OSError, ValueError):
        return 0
