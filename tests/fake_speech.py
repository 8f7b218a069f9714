"""Recordings and an engine without numerics: one second a byte, one window a line."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from whisper_npu.batch import Batch, workers
from whisper_npu.batch.recordings import Recording, find
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.errors import AudioError
from whisper_npu.events import Event, Language, State, WindowDone
from whisper_npu.options import BatchOptions
from whisper_npu.transcribe import Transcription
from whisper_npu.transcript import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.batch.report import Result
    from whisper_npu.listening import Features


@dataclass
class Lines:
    """Features: what the recording says, 30 s a line."""

    lines: list[str]

    @property
    def n_frames(self) -> int:
        return 3000 * len(self.lines)

    @property
    def duration(self) -> float:
        return self.n_frames / 100

    def window(
        self, start: int, n_frames: int = 3000, *, silence: bool = False
    ) -> NDArray[np.float32]:
        raise NotImplementedError


def prepare(path: Path, stack: ExitStack) -> tuple[Lines, tuple[str, ...]]:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"{path.name}: cannot be read") from error
    if text.startswith("bad"):
        raise AudioError(f"{path.name}: not audio")
    return Lines(text.splitlines()), ()


class Engine(workers.Engine):
    """Says each line back; `on_window` may interfere."""

    device = DeviceInfo("scripted", "cpu", "f32", "f32")

    def __init__(self, on_window: Callable[[str], None] = lambda _: None) -> None:
        self.on_window = on_window
        self.heard: list[str] = []
        self.closed = False

    def begin(self, features: Features, state: State | None) -> Run:
        assert isinstance(features, Lines)
        return Run(self, features, state or State())

    def close(self) -> None:
        self.closed = True


class Run(Transcription):
    def __init__(self, engine: Engine, features: Lines, state: State) -> None:
        self.engine = engine
        self.features = features
        self.state = state

    def __iter__(self) -> Iterator[Event]:
        yield Language("en", 0.9, 0.0)
        for i in range(self.state.seek // 3000, len(self.features.lines)):
            line = self.features.lines[i]
            self.engine.on_window(line)
            self.engine.heard.append(line)
            yield Segment(
                i,
                3000 * i,
                30.0 * i,
                30.0 * i + 29.99,
                f" {line}",
                (i, 7),
                0.2,
                -0.1 / 3,
                1.5,
                0.01,
            )
            self.state = replace(
                self.state, seek=3000 * (i + 1), n_segments=i + 1, recent=(i, 7), language="en"
            )
            yield WindowDone(30.0 * (i + 1), self.state)

    def transcript(self, segments: list[Segment]) -> Transcript:
        text = "".join(segment.text for segment in segments)
        return Transcript(text, tuple(segments), "en", 0.9, self.features.n_frames / 100)


@dataclass
class Watcher:
    """A listener that remembers."""

    begun: list[tuple[str, float]] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    device: str = ""
    thread: threading.Thread = field(default_factory=threading.current_thread)

    def opened(self, device: DeviceInfo) -> None:
        self.device = device.name

    def started(self, recording: Recording, seconds: float, done: float) -> None:
        assert threading.current_thread() is self.thread
        self.begun.append((recording.output, done))

    def heard(self, recording: Recording, event: Event) -> None:
        self.events.append(event)

    def finished(self, recording: Recording, result: Result, transcript: Transcript | None) -> None:
        assert (transcript is not None) == (result.status == "done")
        self.results[recording.output] = result

    def statuses(self) -> dict[str, str]:
        return {name: result.status for name, result in self.results.items()}


def transcribe(
    inputs: Iterable[Path],
    folder: Path | None,
    *,
    engine: Engine | None = None,
    work: str = "model and options",
    n_workers: int = 1,
    batch_size: int = 1,
    **options: object,
) -> tuple[Watcher, Batch]:
    """Run a batch of recordings through a scripted engine."""
    watcher = Watcher()
    batch_options = BatchOptions(output_dir=folder, **{"output_format": ("txt", "json")} | options)  # type: ignore[arg-type]  # tests name them
    batch = Batch(find(list(inputs)), batch_options, {"work": work}, prepare, watcher)
    engine = engine or Engine()
    workers.run(batch, lambda *_: engine, n_workers, batch_size=batch_size)
    return watcher, batch
