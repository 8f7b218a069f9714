"""A batch on this machine: threads, each with a device, the next recording prepared meanwhile."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu import cache, sources
from whisper_npu.devices.cores import choose
from whisper_npu.devices.opening import npu_cores, open_device
from whisper_npu.errors import AudioError, OptionError, OutputError
from whisper_npu.events import WindowDone
from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.listening import listen
from whisper_npu.machine import Machine
from whisper_npu.options import DeviceOptions
from whisper_npu.transcribe import Model, Transcription
from whisper_npu.transcript import Segment
from whisper_npu.translation import require_translation

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from whisper_npu.audio import Source
    from whisper_npu.batch import Batch, Job
    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.events import State
    from whisper_npu.listening import Features
    from whisper_npu.options import SubtitleOptions, TranscribeOptions

_LOOK = 0.2  # seconds between two looks for a signal
_COPIES = 4  # of the weights: what one worker may need in memory, generously


@dataclass
class Engine:
    """What a worker works with: a model with the options for its recordings."""

    model: Model
    options: TranscribeOptions

    @property
    def device(self) -> DeviceInfo:
        """What does the work."""
        return self.model.device.info

    def begin(self, features: Features, state: State | None) -> Transcription:
        """Start a recording, or go on with one."""
        return Transcription(self.model, features, self.options, state)

    def close(self) -> None:
        """Give the device back."""
        self.model.close()


class Opening:
    """A model that is found, and opened when there is work; workers share its weights.

    name  None: the default
    say   hears what is downloaded
    Raises OptionError, ModelError.
    """

    def __init__(
        self,
        name: str | None,
        device: str | DeviceOptions,
        options: TranscribeOptions,
        *,
        offline: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._device = device if isinstance(device, DeviceOptions) else DeviceOptions(device)
        self._door = threading.Lock()
        self._options = options
        self._checkpoint = sources.open_checkpoint(name, offline=offline, say=say)
        if options.task == "translate":
            require_translation(self._checkpoint)

    @property
    def fingerprint(self) -> str:
        """The key of the weights: `Checkpoint.fingerprint`."""
        return self._checkpoint.fingerprint

    def describe(self, subtitles: SubtitleOptions) -> dict[str, Any]:
        """What outputs depend on but the recording, for the journal."""
        return {
            "model": self.fingerprint,
            "files": {path.name: cache.sha256(path) for path in self._checkpoint.settings},
            "device": asdict(self._device),
            "options": asdict(self._options),
            "subtitles": asdict(subtitles),
        }

    def prepare(self, path: Source, stack: ExitStack) -> tuple[Features, tuple[str, ...]]:
        """Features of a recording, and what is wrong with it. Raises AudioError, OutputError."""
        features, warnings = listen(path, self._checkpoint.dims.n_mels, self._options)
        stack.callback(features.close)
        return features, warnings

    @property
    def n_workers(self) -> int:
        """How many are sensible: one for each core of an NPU, as far as the memory reaches."""
        free, _ = Machine().memory() or (0, 0)
        return max(1, min(npu_cores(self._device), free // (_COPIES * self._checkpoint.n_bytes)))

    def engine(self, number: int, of: int = 1) -> Engine:
        """A device of its own for each worker, with its share of the cores.

        Raises DeviceError, ModelError.
        """
        with self._door:  # what is measured or converted at first use happens once
            threads = self._device.threads
            if of > 1 and threads is None:
                threads = max(1, choose().threads // of)
            options = replace(self._device, share=(number, of), threads=threads)
            device = open_device(self._checkpoint, options)
        return Engine(Model(self._checkpoint, device), self._options)


def run(
    batch: Batch,
    open_engine: Callable[[int, int], Engine],
    n_workers: int = 1,
    max_memory: int | None = None,
) -> None:
    """Work until all recordings have ended, or the batch is stopped.

    open_engine  number of the worker, of how many -> its engine, opened when there is work for it
    max_memory   bytes; above, nothing is prepared ahead and workers leave, but for one
    Raises what ends a batch: ModelError, DeviceError, and bugs; its report is complete then too.
    """
    if n_workers < 1:
        raise OptionError(f"workers: {n_workers} cannot do anything", "workers")
    if batch.report.total is not None:
        n_workers = min(n_workers, batch.report.total)
    crew = _Crew(batch, open_engine, n_workers, max_memory)
    threads = [
        threading.Thread(target=crew.work, args=(number,), name=f"worker {number}")
        for number in range(n_workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while crew.n_working:
            batch.tell(_LOOK)
    finally:  # a listener may have failed
        batch.stop()
        for thread in threads:
            thread.join()
    batch.tell(0)
    if crew.error is not None:
        raise crew.error


class _Crew:
    def __init__(
        self,
        batch: Batch,
        open_engine: Callable[[int, int], Engine],
        n_workers: int,
        max_memory: int | None,
    ) -> None:
        self.error: BaseException | None = None
        self.n_working = n_workers  # as the main thread knows
        self._n_workers = self._n_staying = n_workers
        self._door = threading.Lock()
        self._batch = batch
        self._open_engine = open_engine
        self._max_memory = max_memory

    def work(self, number: int) -> None:
        """One worker's day."""
        try:
            with ExitStack() as stack:
                self._serve(number, stack)
        except BaseException as error:  # noqa: BLE001  raised again by `run`, in the main thread
            self.error = self.error or error
            self._batch.stop()
        finally:
            self._batch.call(self._left)

    def _left(self) -> None:
        self.n_working -= 1

    def _serve(self, number: int, stack: ExitStack) -> None:
        engine = None
        ahead = stack.enter_context(ThreadPoolExecutor(1, f"worker {number}, ahead"))
        upcoming = ahead.submit(self._batch.next_job)
        stack.callback(lambda: _abandon(upcoming))
        while (job := upcoming.result()) is not None:
            with job.resources:
                if engine is None:
                    engine = self._open_engine(number, self._n_workers)
                    stack.callback(engine.close)
                    self._batch.say_opened(engine.device)
                crowded = self._is_above_memory()
                if not crowded:
                    upcoming = ahead.submit(self._batch.next_job)
                self._transcribe(job, engine)
            if crowded:
                if self._is_above_memory() and self._may_leave():
                    return  # fewer workers need less
                upcoming = ahead.submit(self._batch.next_job)

    def _may_leave(self) -> bool:
        """Whether somebody stays, if we go."""
        with self._door:
            if self._n_staying == 1:
                return False
            self._n_staying -= 1
            return True

    def _is_above_memory(self) -> bool:
        return self._max_memory is not None and anonymous_memory() > self._max_memory

    def _transcribe(self, job: Job, engine: Engine) -> None:
        started = time.monotonic()
        assert job.features is not None  # noqa: S101  prepared on this machine
        before = job.state.seek / FRAMES_PER_SECOND if job.state else 0.0
        seconds = job.features.duration
        self._batch.say_started(job, seconds, before)
        try:
            with self._batch.report.timing():
                run = engine.begin(job.features, job.state)
                whole = self._hear(job, run, job.features.n_frames)
            if not whole:
                self._batch.interrupt(job)
                return
        except (AudioError, OptionError, OutputError) as error:
            self._batch.fail(job, error)
            return
        elapsed = time.monotonic() - started
        self._batch.finish(job, run.transcript(job.segments), elapsed, seconds - before)

    def _hear(self, job: Job, run: Transcription, n_frames: int) -> bool:
        """Go through a recording; False when stopped before its end."""
        recent: list[Segment] = []
        for event in run:
            self._batch.say_heard(job, event)
            if isinstance(event, Segment):
                recent.append(event)
            elif isinstance(event, WindowDone):
                job.segments += recent
                if job.claim:
                    job.claim.add(event.state, recent)
                recent = []
                if self._batch.is_stopping and event.state.seek < n_frames:
                    return False
        return True


def _abandon(upcoming: Future[Job | None]) -> None:
    """Give back what was prepared and will not be used."""
    if not upcoming.cancel() and upcoming.exception() is None and (job := upcoming.result()):
        job.resources.close()


def anonymous_memory() -> int:
    """Bytes of memory of this process that no file stands behind; 0 where the system is silent."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
