"""What a person asked for -> a batch that runs, on this machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from whisper_npu.batch import Batch, cluster, workers
from whisper_npu.batch.interrupts import finishing
from whisper_npu.batch.recordings import find, require_apart, watch
from whisper_npu.devices.opening import plan_lines
from whisper_npu.errors import OptionError
from whisper_npu.messages import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from whisper_npu.batch import Listener
    from whisper_npu.batch.recordings import Recording
    from whisper_npu.options import (
        BatchOptions,
        DeviceOptions,
        InputOptions,
        RunOptions,
        TranscribeOptions,
    )


@dataclass(frozen=True)
class Request:
    """Everything that one run was asked for."""

    inputs: Sequence[str]  # recordings, folders, patterns
    model: str | None  # name or folder; None: the default
    device: DeviceOptions
    transcribe: TranscribeOptions
    search: InputOptions
    batch: BatchOptions
    run: RunOptions
    offline: bool = False


class Run:
    """A request that makes sense: its recordings are found, and none will be overwritten.

    say  hears what is downloaded, and what a person should know
    Raises OptionError.
    """

    def __init__(self, request: Request, say: Callable[[str], None]) -> None:
        self._request = request = replace(request, transcribe=_with_words(request))
        self._say = say
        if request.run.watch and request.run.output_name:
            raise OptionError("output_name needs a single recording, not watch", "output_name")
        self.recordings = [] if request.run.watch else _found(request)
        _require_safe(self.recordings, request)

    @cached_property
    def _opening(self) -> workers.Opening:
        """The model, found; raises ModelError."""
        request = self._request
        return workers.Opening(
            request.model,
            request.device,
            request.transcribe,
            offline=request.offline,
            say=self._say,
        )

    @cached_property
    def _n_workers(self) -> int:
        options, written = self._request.run, self._request.batch.output_dir is not None
        if options.workers is not None:
            return options.workers
        # on stdout, transcripts keep the order of the recordings
        return self._opening.n_workers if written and not options.cluster else 1

    @cached_property
    def _batch_size(self) -> int:
        """How many recordings each worker transcribes at the same time."""
        options, written = self._request.run, self._request.batch.output_dir is not None
        if options.batch_size is not None:
            return options.batch_size
        if not written or options.cluster or len(self.recordings) == 1:
            return 1
        return max(1, self._opening.batch_size // self._n_workers)

    @property
    def is_in_order(self) -> bool:
        """Whether one recording follows the other, so that text can be shown as it is heard.

        Raises ModelError.
        """
        return self._n_workers * self._batch_size == 1 and not self._request.run.cluster

    def batch(self, listener: Listener) -> Batch:
        """What is to be done; `run` does it."""
        request = self._request
        queue: Iterable[Recording] = self.recordings
        if request.run.watch:
            queue = self._watch(lambda: batch.is_stopping)
        prepare = None if request.run.cluster else self._opening.prepare
        describe = self._opening.describe(request.batch.subtitles)
        batch = Batch(queue, request.batch, describe, prepare, listener)
        return batch

    def run(self, batch: Batch) -> None:
        """Work until all recordings have ended, or a signal comes.

        Raises what ends a batch: ModelError, DeviceError, OptionError, Interrupted.
        """
        request, options = self._request, self._request.run
        keeps = request.batch.output_dir is not None
        then = "the same command goes on from here" if keeps else "with -o it could be resumed"
        with finishing(batch.stop, self._say, then):
            if options.cluster:
                task = cluster.Assignment(
                    request.model,
                    request.device,
                    request.transcribe,
                    self._opening.fingerprint,
                    request.offline,
                )
                cluster.run(batch, options.cluster, task, shared=options.shared_paths)
            else:
                workers.run(
                    batch,
                    self._engine,
                    self._n_workers,
                    options.max_memory,
                    batch_size=self._batch_size,
                )

    def _watch(self, is_stopped: Callable[[], bool]) -> Iterator[Recording]:
        for recording in watch(self._request.inputs, self._request.search, is_stopped):
            _require_safe([recording], self._request)
            yield recording

    def _engine(self, number: int, of: int) -> workers.Engine:
        engine = self._opening.engine(number, of)
        if self._request.run.plan and number == 0:
            self._say("\n".join(plan_lines(engine.model.device)))
        return engine


def _with_words(request: Request) -> TranscribeOptions:
    """A page, and cues that are laid out anew, need word times; no other format may change."""
    options, subtitles = request.transcribe, request.batch.subtitles
    if subtitles.needs_words and not options.word_timestamps:
        raise OptionError("subtitles laid out by words need word_timestamps", "word_timestamps")
    timed = {"html", "srt", "vtt"} if subtitles.limits else {"html"}
    return replace(options, align_words=not timed.isdisjoint(request.batch.output_format))


def _require_safe(recordings: Sequence[Recording], request: Request) -> None:
    """Raise OptionError when something would be written over a recording, or over a transcript."""
    report = request.run.report
    outputs = [path for one in recordings for path in request.batch.files(one.output)]
    require_apart(recordings, [*outputs, report] if report else outputs)
    if report is not None and report.is_dir():
        raise OptionError(f"report: {printable(report)} is a folder, not a file", "report")
    if report is not None and report.absolute() in {path.absolute() for path in outputs}:
        raise OptionError(f"report: {printable(report)} is the transcript of a recording", "report")


def _found(request: Request) -> list[Recording]:
    recordings, name = find(request.inputs, request.search), request.run.output_name
    if not recordings:
        raise OptionError("no recordings there: is --recursive or --include missing?")
    if name is None:
        return recordings
    if len(recordings) > 1:
        raise OptionError("output_name needs a single recording", "output_name")
    return [replace(recordings[0], output=name)]
