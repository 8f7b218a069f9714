"""A batch on many machines: recordings go to a Dask cluster, results and journal stay here.

Scheduling, retrying what a lost board was doing, and moving data are `dask.distributed`'s. A
board only turns a recording into a transcript; the machine that submitted it holds the claim and
writes the outputs, so two boards never write the same one.
"""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from whisper_npu.batch.workers import Opening
from whisper_npu.errors import AudioError, DeviceError, ModelError, OptionError, OutputError
from whisper_npu.transcript import Segment, Transcript

if TYPE_CHECKING:
    from concurrent.futures import Future as LocalFuture

    from whisper_npu.batch import Batch, Job
    from whisper_npu.devices import DeviceOptions
    from whisper_npu.options import TranscribeOptions

_LOOK = 0.2  # seconds between two looks for a signal
_AHEAD = 2  # recordings sent to each worker before it asks


@dataclass(frozen=True)
class Task:
    """How every recording of a batch is transcribed, wherever that is."""

    model: str | None
    device: DeviceOptions
    options: TranscribeOptions
    weights: str  # fingerprint: all boards must have the same
    offline: bool = False


@dataclass(frozen=True)
class Answer:
    """What comes back."""

    transcript: Transcript
    warnings: tuple[str, ...]
    device: str
    elapsed: float  # seconds


def transcribe(task: Task, name: str, content: bytes | None) -> Answer:
    """On a board: one recording, by shared path, or by its content.

    Raises AudioError, OptionError, ModelError, DeviceError; they travel back.
    """
    started = time.monotonic()
    opening, engine, lock = _opened(task)
    with lock, ExitStack() as stack:
        source: Any = name
        if content is not None:
            source = BytesIO(content)
            source.name = name  # what errors speak of
        features, heard = opening.prepare(source, stack)
        run = engine.begin(features, None)
        segments = [event for event in run if isinstance(event, Segment)]
    return Answer(run.transcript(segments), heard, engine.device_name, time.monotonic() - started)


@lru_cache(maxsize=1)
def _opened(task: Task) -> tuple[Opening, Any, threading.Lock]:
    """The model, opened once per process; a session is for one thread at a time."""
    opening = Opening(task.model, task.device, task.options, offline=task.offline)
    if opening.fingerprint != task.weights:
        raise ModelError(f"the model {task.model} on this board is not the one we were sent for")
    return opening, opening.engine(0), threading.Lock()


def run(batch: Batch, address: str, task: Task, *, shared: bool = False) -> None:
    """Work until all recordings have ended, or the batch is stopped.

    address  of the scheduler: tcp://host:8786
    shared   inputs are found at the same path on every board; otherwise their content is sent
    A task for the NPU goes only to workers started with --resources "NPU=1".
    Raises what ends a batch: ModelError, DeviceError (no cluster, too), and bugs.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise OptionError("--cluster needs Dask: pip install 'whisper-npu[cluster]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise DeviceError(f"no Dask scheduler at {address}: {error}") from error
    with client, ThreadPoolExecutor(1, "ahead") as ahead:
        dispatch = _Dispatch(batch, client, task, shared=shared)
        try:
            dispatch.run(ahead)
        finally:
            batch.stop()
            dispatch.abandon()
            batch.tell(0)


def _needs_npu(device: DeviceOptions) -> bool:
    return device.device == "npu" and device.emulate is None


class _Dispatch:
    def __init__(self, batch: Batch, client: Any, task: Task, *, shared: bool) -> None:
        self._batch = batch
        self._client = client
        self._task = task
        self._shared = shared
        self._sent: dict[Any, Job] = {}  # future -> what it does
        self._upcoming: LocalFuture[Job | None] | None = None

    def run(self, ahead: ThreadPoolExecutor) -> None:
        """Send recordings, and take the answers as they come."""
        from distributed import TimeoutError as NothingYet
        from distributed import wait

        self._upcoming = ahead.submit(self._batch.next_job)
        while self._upcoming or self._sent:
            if self._upcoming and self._upcoming.done() and self._has_room():
                job = self._upcoming.result()
                self._upcoming = ahead.submit(self._batch.next_job) if job else None
                if job:
                    self._send(job)
                continue
            if self._batch.is_stopping:
                return
            if not self._sent:
                time.sleep(_LOOK / 10)
            else:
                try:
                    ended = wait(list(self._sent), _LOOK, "FIRST_COMPLETED").done
                except NothingYet:
                    ended = ()
                for future in ended:
                    self._take(future)
            self._batch.tell(0)

    def _has_room(self) -> bool:
        threads = sum(self._client.nthreads().values())
        return len(self._sent) < max(1, _AHEAD * threads)

    def _send(self, job: Job) -> None:
        """Send a recording; its content travels with the task, so that it outlives any board."""
        path = job.recording.path
        try:
            content = None if self._shared else path.read_bytes()
        except OSError as error:
            with job.resources:
                self._batch.fail(job, AudioError(f"{job.recording.name}: {error.strerror}"))
            return
        name = str(path.absolute()) if self._shared else job.recording.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "large graph": recordings are large
            future = self._client.submit(
                transcribe,
                self._task,
                name,
                content,
                pure=False,
                resources={"NPU": 1} if _needs_npu(self._task.device) else None,
            )
        self._sent[future] = job

    def _take(self, future: Any) -> None:
        """Write what a board has answered; its errors are as if they had happened here."""
        from distributed import KilledWorker

        job = self._sent.pop(future)
        with job.resources:
            try:
                answer: Answer = future.result()
            except (AudioError, OptionError, OutputError) as error:
                self._batch.fail(job, error)
                return
            except KilledWorker as error:
                reason = f"{job.recording.name}: every board that had it was lost ({error})"
                self._batch.fail(job, AudioError(reason))
                return
            self._batch.say_opened(answer.device)
            job.warnings = answer.warnings
            for segment in answer.transcript.segments:
                self._batch.say_heard(job, segment)
            transcript = answer.transcript
            self._batch.finish(job, transcript, answer.elapsed, transcript.duration)

    def abandon(self) -> None:
        """Call back what is out, and give back the claims."""
        self._client.cancel(list(self._sent))
        for job in self._sent.values():
            with job.resources:
                self._batch.interrupt(job)
        self._sent.clear()
        unsent = self._upcoming.result() if self._upcoming else None
        if unsent:
            unsent.resources.close()
