"""Many recordings through one model: skip what is done, isolate failures, lose nothing.

A batch begins and ends recordings; `workers` or `cluster` transcribe them in between. A single
file is a batch of one. An error of one recording ends that recording; one of the model or the
device, or a disk that takes nothing more, ends the batch. What is finished stays, whatever
happens.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Iterable, Sized
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from whisper_npu import writers
from whisper_npu.batch.journal import Claim, Journal, Outcome, Source
from whisper_npu.batch.recordings import STDIN, Recording
from whisper_npu.batch.report import DONE, FAILED, INTERRUPTED, SKIPPED, Report, Result
from whisper_npu.cache import remove_leftovers, sha256
from whisper_npu.errors import AudioError, DiskError, OutputError, WhisperNpuError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.events import Event, State
    from whisper_npu.listening import Features
    from whisper_npu.options import BatchOptions
    from whisper_npu.transcript import Segment, Transcript

    Prepare = Callable[[Path, ExitStack], tuple[Features, tuple[str, ...]]]


class Listener(Protocol):
    """Who watches a batch; always called from the thread that runs it."""

    def opened(self, device: DeviceInfo) -> None:
        """A worker has its device, or a board has told of its."""
        ...

    def started(self, recording: Recording, seconds: float, done: float) -> None:
        """A recording of so many seconds begins; the first `done` of them were done before."""
        ...

    def heard(self, recording: Recording, event: Event) -> None:
        """Something was heard."""
        ...

    def finished(self, recording: Recording, result: Result, transcript: Transcript | None) -> None:
        """A recording has ended."""
        ...


@dataclass
class Job:
    """A recording ready to be transcribed; it holds its claim until it is closed."""

    recording: Recording
    source: Source
    claim: Claim | None
    state: State | None
    segments: list[Segment]
    resources: ExitStack
    features: Features | None = None  # None: they are made elsewhere, on another machine
    warnings: tuple[str, ...] = ()


class Batch:
    """The recordings that wait, what became of the others, and who watches.

    recordings  taken one at a time, as workers are free: it may be endless
    describe  everything the outputs depend on but the recording: model and options, as JSON
    prepare   path -> features and warnings, held by the stack; None: that happens elsewhere
    """

    def __init__(
        self,
        recordings: Iterable[Recording],
        options: BatchOptions,
        describe: dict[str, Any],
        prepare: Prepare | None,
        listener: Listener,
    ) -> None:
        self._options = options
        self._describe = describe
        text = json.dumps(describe, sort_keys=True)
        self._work = hashlib.sha256(text.encode("ascii")).hexdigest()
        self._prepare = prepare
        self._listener = listener
        self._journal = Journal(options.output_dir) if options.output_dir else None
        self._stopping = threading.Event()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting = iter(recordings)
        self._turn = threading.Lock()
        self._noted = False
        self.report = Report(total=len(recordings) if isinstance(recordings, Sized) else None)

    def stop(self) -> None:
        """Finish the windows in work, then end."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def next_job(self) -> Job | None:
        """The next recording that needs work, claimed and prepared; None: no more, or stopped."""
        while not self.is_stopping:
            with self._turn:
                recording = next(self._waiting, None)
            if recording is None:
                return None
            if job := self.begin(recording):
                return job
        return None

    # one recording: begin, then finish, fail or interrupt

    def begin(self, recording: Recording) -> Job | None:
        """Claim and prepare a recording; None: there is nothing to do, and that is reported."""
        resources = ExitStack()
        try:
            with resources, self.report.timing():
                job = self._begin(recording, resources)
                if job is not None:
                    job.resources = resources.pop_all()
                return job
        except DiskError:
            self._interrupted(recording)
            raise
        except (AudioError, OutputError) as error:
            self._end(recording, _failure(recording, error))
            return None

    def _begin(self, recording: Recording, resources: ExitStack) -> Job | None:
        job = Job(recording, Source(0, 0, ""), None, None, [], resources)
        if not self._claim(job):
            return None
        try:
            if self._prepare is not None:
                job.features, job.warnings = self._prepare(recording.path, resources)
        except AudioError as error:
            self.fail(job, error)  # it is no recording, and will not be one until it changes
            return None
        if job.claim and _identity(recording) != (job.source.size, job.source.mtime_ns):
            raise AudioError(f"{recording.name}: changed while it was read: run again to do it")
        return job

    def _claim(self, job: Job) -> bool:
        """Whether there is work to do on a recording; if so it is ours, and restored."""
        recording = job.recording
        if self._options.skip_existing and self._outputs_exist(recording):
            return self._skip(recording, "its outputs exist")
        if self._journal is None or not _is_file(recording.path):
            return True
        identity = _identity(recording)
        known = (
            None if self._journal.was_left(recording.output) else self._known(recording, identity)
        )
        if known and self._is_settled(recording, known):
            return False  # without a lock: there may be thousands
        job.claim = job.resources.enter_context(self._journal.claim(recording.output))
        if job.claim is None:
            return self._skip(recording, "another process is working on it")
        # the journal may have grown until the claim was ours
        job.source = self._known(recording, identity) or Source(*identity, _sha256(recording))
        if job.claim.interrupted:
            for path in self._options.files(recording.output):
                remove_leftovers(path)  # the claim says that nobody else writes it
        if self._is_settled(recording, job.source):
            job.claim.forget()
            return False
        self._restore(job, job.claim)
        return True

    def _restore(self, job: Job, claim: Claim) -> None:
        """Go on where somebody was interrupted."""
        self._note()
        if not self._options.resume:
            claim.clear()
        job.state, job.segments = claim.restore(self._work, job.source.content)

    def _note(self) -> None:
        """Say once in the journal what the fingerprint of this batch's work stands for."""
        with self._turn:
            noted, self._noted = self._noted, True
        if self._journal and not noted:
            self._journal.note({"work": self._work, "is": self._describe})

    def _known(self, recording: Recording, identity: tuple[int, int]) -> Source | None:
        """The recording's content, when nothing about the file has changed since it was read."""
        entry = self._journal.entry(recording.output) if self._journal else None
        if entry and (entry.source.size, entry.source.mtime_ns) == identity:
            return entry.source
        return None

    def _is_settled(self, recording: Recording, source: Source) -> bool:
        """Report what the journal knows to be done, or to fail again."""
        if not self._options.resume or self._journal is None:
            return False
        entry = self._journal.entry(recording.output)
        if entry is None or (entry.work, entry.source.content) != (self._work, source.content):
            return False
        if entry.status == DONE and self._outputs_exist(recording):
            self._skip(recording, "done before")
            return True
        if entry.status == FAILED and not self._options.retry_failed:
            reason = f"{entry.error} (before; --retry-failed tries again)"
            self._end(recording, Result(recording.name, FAILED, reason, AudioError.exit_code))
            return True
        return False

    def finish(self, job: Job, transcript: Transcript, elapsed: float, seconds: float) -> None:
        """Write the outputs, then say so in the journal: in this order nothing can be lost."""
        recording = job.recording
        outputs: tuple[str, ...] = ()
        try:
            if self._options.output_dir is not None:
                folder, formats = self._options.output_dir, self._options.output_format
                paths = writers.write_all(
                    transcript, folder, recording.output, formats, self._options.subtitles,
                    recording=recording.path,
                )  # fmt: skip
                outputs = tuple(path.relative_to(folder).as_posix() for path in paths)
            if job.claim and self._journal:
                entry = Outcome(DONE, self._work, job.source, outputs)
                self._journal.add(
                    recording.output, entry, seconds=transcript.duration,
                    elapsed=round(elapsed, 3), device=transcript.device,
                )  # fmt: skip
                job.claim.forget()
        except OutputError as error:
            self.fail(job, error)
            return
        result = Result(
            recording.name,
            DONE,
            seconds=seconds,
            elapsed=elapsed,
            language=transcript.language,
            outputs=outputs,
            warnings=job.warnings,
            device=transcript.device,
            origin=transcript.origin,
        )
        self._end(recording, result, transcript)

    def fail(self, job: Job, error: WhisperNpuError) -> None:
        """A recording cannot be transcribed; the others can, unless it is for want of a disk.

        Raises DiskError again.
        """
        if isinstance(error, DiskError):
            self.interrupt(job)
            raise error
        result = _failure(job.recording, error)
        if job.claim and self._journal and not isinstance(error, OutputError):
            entry = Outcome(FAILED, self._work, job.source, error=str(error))
            try:
                self._journal.add(job.recording.output, entry)
                job.claim.forget()
            except OutputError as unwritten:
                self.fail(job, unwritten)
                return
        self._end(job.recording, result)

    def interrupt(self, job: Job) -> None:
        """A recording was stopped before its end; its windows are kept."""
        self._interrupted(job.recording)

    def _interrupted(self, recording: Recording) -> None:
        self._end(recording, Result(recording.name, INTERRUPTED, "run again to continue"))

    def call(self, what: Callable[[], None]) -> None:
        """Have the thread that runs the batch call this, and wake it."""
        self._calls.put(what)

    def say_opened(self, device: DeviceInfo) -> None:
        """Report the device, and tell the listener."""
        self.report.device, self.report.origin = device.name, device.origin
        self.call(lambda: self._listener.opened(device))

    def say_started(self, job: Job, seconds: float, done: float) -> None:
        """Tell the listener."""
        self.call(lambda: self._listener.started(job.recording, seconds, done))

    def say_heard(self, job: Job, event: Event) -> None:
        """Tell the listener."""
        self.call(lambda: self._listener.heard(job.recording, event))

    def _skip(self, recording: Recording, reason: str) -> Literal[False]:
        self._end(recording, Result(recording.name, SKIPPED, reason))
        return False

    def _end(
        self, recording: Recording, result: Result, transcript: Transcript | None = None
    ) -> None:
        def tell() -> None:
            self.report.add(result)
            self._listener.finished(recording, result, transcript)

        self.call(tell)

    def _outputs_exist(self, recording: Recording) -> bool:
        paths = self._options.files(recording.output)
        return bool(paths) and all(path.is_file() for path in paths)

    def tell(self, wait: float) -> None:
        """Pass on what has happened to the listener."""
        try:
            if wait:
                self._calls.get(timeout=wait)()
            while True:
                self._calls.get_nowait()()
        except queue.Empty:
            pass


def _failure(recording: Recording, error: WhisperNpuError) -> Result:
    reason = str(error).removeprefix(f"{recording.name}: ")
    return Result(recording.name, FAILED, reason, error.exit_code)


def _is_file(path: Path) -> bool:
    """Whether it can be read twice; a pipe cannot, and what is missing is told as if it could."""
    return path != STDIN and (path.is_file() or not path.exists())


def _identity(recording: Recording) -> tuple[int, int]:
    """Size and time: what changes when a file is written to or replaced."""
    try:
        status = recording.path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{recording.name}: cannot be read: {reason}") from error
    return status.st_size, status.st_mtime_ns


def _sha256(recording: Recording) -> str:
    try:
        return sha256(recording.path)
    except OSError as error:
        raise AudioError(f"{recording.name}: cannot be read: {error.strerror}") from error
