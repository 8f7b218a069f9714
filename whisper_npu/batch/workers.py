"""A batch on this machine: workers, each with a device and the recordings that share its steps.

A recording has a thread of its own; the next one is prepared meanwhile.
"""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
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

    from whisper_npu.audio import Source
    from whisper_npu.batch import Batch, Job
    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.events import State
    from whisper_npu.listening import Features
    from whisper_npu.options import SubtitleOptions, TranscribeOptions

_LOOK = 0.2  # seconds between two looks for a signal
_MOST_TOGETHER = 8  # recordings; more of them hardly share more
_KEY_BYTES = 4  # of a key or a value, at most
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

    @property
    def batch_size(self) -> int:
        """How many recordings can be decoded at the same time in half of the free memory."""
        free, _ = Machine().memory() or (0, 0)
        dims, rows = self._checkpoint.dims, self._options.beam_size or self._options.best_of or 1
        positions = dims.n_audio_ctx + rows * dims.n_text_ctx
        keys_values = 2 * dims.n_text_layer * dims.n_text_state * positions
        return max(1, min(_MOST_TOGETHER, free // (2 * _KEY_BYTES * keys_values)))

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
    *,
    batch_size: int = 1,
) -> None:
    """Work until all recordings have ended, or the batch is stopped.

    open_engine  number of the worker, of how many -> its engine, opened when there is work for it
    max_memory   bytes; above, nothing is prepared ahead and recordings are done one by one
    batch_size   recordings that a worker transcribes at the same time
    Raises what ends a batch: ModelError, DeviceError, and bugs; its report is complete then too.
    """
    if n_workers < 1:
        raise OptionError(f"workers: {n_workers} cannot do anything", "workers")
    if batch.report.total is not None:
        n_workers = min(n_workers, batch.report.total)
        batch_size = min(batch_size, -(-batch.report.total // max(1, n_workers)))
    crew = _Crew(batch, n_workers, batch_size, max_memory)
    workers = [_Worker(batch, open_engine, number, n_workers) for number in range(n_workers)]
    threads = [
        threading.Thread(target=crew.work, args=(worker,), name=worker.name) for worker in workers
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


class _Worker:
    """A device for several threads, opened by the first one, and the recording that comes next."""

    def __init__(
        self, batch: Batch, open_engine: Callable[[int, int], Engine], number: int, of: int
    ) -> None:
        self.name = f"worker {number}"
        self._batch = batch
        self._open_engine: Callable[[], Engine] = lambda: open_engine(number, of)
        self._door = threading.Lock()
        self._engine: Future[Engine] | None = None
        self._upcoming: Future[Job | None] | None = None
        self._ahead = ThreadPoolExecutor(1, f"{self.name}, ahead")

    def engine(self) -> Engine:
        """The device; raises for every thread what opening it raised for the first one."""
        with self._door:
            if first := self._engine is None:
                self._engine = Future()
        assert self._engine is not None  # noqa: S101  made just now
        if first:
            try:
                self._engine.set_result(self._open_engine())
            except BaseException as error:  # noqa: BLE001  raised just below
                self._engine.set_exception(error)
            else:
                self._batch.say_opened(self._engine.result().device)
        return self._engine.result()

    def prepare(self) -> None:
        """Get the next recording ready while others are transcribed."""
        with self._door:
            self._upcoming = self._upcoming or self._ahead.submit(self._batch.next_job)

    def next_job(self) -> Job | None:
        """What `prepare` has made ready; None: there is no more."""
        self.prepare()
        with self._door:
            upcoming, self._upcoming = self._upcoming, None
        return (upcoming or self._ahead.submit(self._batch.next_job)).result()

    def close(self) -> None:
        """Give back the device, and what was prepared and will not be used."""
        upcoming, engine = self._upcoming, self._engine
        if upcoming and not upcoming.cancel() and not upcoming.exception():
            job = upcoming.result()
            if job is not None:
                job.resources.close()
        self._ahead.shutdown()
        if engine and not engine.exception():
            engine.result().close()


class _Crew:
    """All threads that transcribe."""

    def __init__(
        self, batch: Batch, n_workers: int, batch_size: int, max_memory: int | None
    ) -> None:
        self.error: BaseException | None = None
        self.n_working = n_workers  # as the main thread knows
        self._batch_size = batch_size
        self._n_staying = n_workers * batch_size
        self._door = threading.Lock()
        self._batch = batch
        self._max_memory = max_memory

    def work(self, worker: _Worker) -> None:
        """A worker's day."""
        try:
            with closing(worker), ThreadPoolExecutor(self._batch_size, worker.name) as threads:
                for _ in range(self._batch_size):
                    threads.submit(self._serve, worker)
        except BaseException as error:  # noqa: BLE001  raised again by `run`, in the main thread
            self._fail(error)
        finally:
            self._batch.call(self._left)

    def _left(self) -> None:
        self.n_working -= 1

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self._batch.stop()

    def _serve(self, worker: _Worker) -> None:
        """One recording after the other."""
        try:
            while (job := worker.next_job()) is not None:
                with job.resources:
                    engine = worker.engine()
                    if not (crowded := self._is_above_memory()):
                        worker.prepare()
                    self._transcribe(job, engine)
                if crowded and self._is_above_memory() and self._may_leave():
                    return  # fewer recordings at a time need less
        except BaseException as error:  # noqa: BLE001  as above
            self._fail(error)

    def _may_leave(self) -> bool:
        """Whether another thread stays, if this one goes."""
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


def anonymous_memory() -> int:
    """Bytes of memory of this process that no file stands behind; 0 where the system is silent."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
