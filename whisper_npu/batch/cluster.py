"""A batch on many machines: recordings go to a Dask cluster, results and journal stay here.

Scheduling, retrying what a lost board was doing, and moving data are `dask.distributed`'s. A
board only turns a recording into a transcript, and tells of each window as it is done; the machine
that submitted it holds the claim and writes the outputs, so two boards never write the same one.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from whisper_npu.batch.journal import progress, progress_record
from whisper_npu.batch.workers import Opening
from whisper_npu.errors import AudioError, DeviceError, ModelError, OptionError, OutputError
from whisper_npu.events import WindowDone
from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.stages import recording
from whisper_npu.transcript import Segment, Transcript

if TYPE_CHECKING:
    from concurrent.futures import Future as LocalFuture

    from whisper_npu.batch import Batch, Job
    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.events import Event, State
    from whisper_npu.options import DeviceOptions, TranscribeOptions

_LOOK = 0.2  # seconds between two looks for a signal
_AHEAD = 2  # recordings sent to each worker before it asks


@dataclass(frozen=True)
class Assignment:
    """How every recording of a batch is transcribed, wherever that is."""

    model: str | None
    device: DeviceOptions
    options: TranscribeOptions
    weights: str  # fingerprint: all boards must have the same
    offline: bool = False
    topic: str = field(default_factory=lambda: f"whisper-npu-{uuid4().hex}")  # of what boards tell


@dataclass(frozen=True)
class Answer:
    """What comes back."""

    transcript: Transcript
    warnings: tuple[str, ...]
    device: DeviceInfo
    elapsed: float  # seconds
    seconds: float  # of audio, transcribed now
    stages: dict[str, float]  # seconds


def transcribe(
    task: Assignment, name: str, content: bytes | None, state: State | None, segments: list[Segment]
) -> Answer:
    """On a board: one recording, by shared path, or by its content.

    state, segments  where an earlier run was interrupted, and what it had heard
    Raises AudioError, OptionError, ModelError, DeviceError; they travel back.
    """
    started = time.monotonic()
    opening, engine, lock = _opened(task)
    with lock, recording() as stages, ExitStack() as stack:
        source: Any = name
        if content is not None:
            source = BytesIO(content)
            source.name = name  # what errors speak of
        features, heard = opening.prepare(source, stack)
        _tell(task, {"seconds": features.duration})
        run = engine.begin(features, state)
        found, n_told = [*segments], len(segments)
        for event in run:
            if isinstance(event, Segment):
                found.append(event)
            elif isinstance(event, WindowDone):
                _tell(task, {"at": event.seconds} | progress_record(event.state, found[n_told:]))
                n_told = len(found)
        transcript = run.transcript(found)
    elapsed, seconds = time.monotonic() - started, transcript.duration - _seconds(state)
    return Answer(transcript, heard, engine.device, elapsed, seconds, stages.seconds)


def _seconds(state: State | None) -> float:
    """What is done of a recording."""
    return state.seek / FRAMES_PER_SECOND if state else 0.0


def _tell(task: Assignment, what: dict[str, Any]) -> None:
    """To the machine that submitted the recording that this thread works on."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(task.topic, {"recording": worker.get_current_task(), **what})


@lru_cache(maxsize=1)
def _opened(task: Assignment) -> tuple[Opening, Any, threading.Lock]:
    """The model, opened once per process; a session is for one thread at a time."""
    opening = Opening(task.model, task.device, task.options, offline=task.offline)
    if opening.fingerprint != task.weights:
        raise ModelError(f"the model {task.model} on this board is not the one we were sent for")
    return opening, opening.engine(0), threading.Lock()


def run(batch: Batch, address: str, task: Assignment, *, shared: bool = False) -> None:
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
    def __init__(self, batch: Batch, client: Any, task: Assignment, *, shared: bool) -> None:
        self._batch = batch
        self._client = client
        self._task = task
        self._shared = shared
        self._sent: dict[Any, Job] = {}  # future -> what it does
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()  # by the boards
        self._upcoming: LocalFuture[Job | None] | None = None

    def run(self, ahead: ThreadPoolExecutor) -> None:
        """Send recordings, and take the answers as they come."""
        from distributed import TimeoutError as NothingYet
        from distributed import wait

        self._client.subscribe_topic(self._task.topic, lambda event: self._told.put(event[1]))
        self._upcoming = ahead.submit(self._batch.next_job)
        while self._upcoming or self._sent:
            if self._upcoming and self._upcoming.done() and self._has_room():
                upcoming, self._upcoming = self._upcoming, None
                job = upcoming.result()
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
                self._listen()
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
                job.state,
                job.segments,
                pure=False,
                resources={"NPU": 1} if _needs_npu(self._task.device) else None,
            )
        self._sent[future] = job

    def _listen(self) -> None:
        """Keep the windows that boards have finished: whoever does the recording next goes on."""
        jobs = {future.key: job for future, job in self._sent.items()}
        while not self._told.empty():
            told = self._told.get()
            job = jobs.get(told["recording"])
            if job is None:
                continue  # its answer was quicker
            if "seconds" in told:
                self._batch.say_started(job, told["seconds"], _seconds(job.state))
                continue
            state, segments = progress(told)
            if job.state and state.seek <= job.state.seek:
                continue  # its first board was lost, and another does it again
            job.state, job.segments = state, job.segments + segments
            with suppress(OutputError):  # a full disk is told at the end, if it still is full
                if job.claim:
                    job.claim.add(state, segments)
            events: list[Event] = [*segments, WindowDone(told["at"], state)]
            for event in events:
                self._batch.say_heard(job, event)

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
            self._batch.report.count(answer.stages)
            transcript = answer.transcript
            for segment in transcript.segments[len(job.segments) :]:  # not told yet
                self._batch.say_heard(job, segment)
            self._batch.finish(job, transcript, answer.elapsed, answer.seconds)

    def abandon(self) -> None:
        """Call back what is out, and give back the claims."""
        self._listen()
        self._client.cancel(list(self._sent))
        for job in self._sent.values():
            with job.resources:
                self._batch.interrupt(job)
        self._sent.clear()
        unsent = self._upcoming.result() if self._upcoming else None
        if unsent:
            unsent.resources.close()
