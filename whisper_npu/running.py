"""What a person asked for -> a batch that runs, on this machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisper_npu.batch import Batch, cluster, workers
from whisper_npu.batch.interrupts import finishing
from whisper_npu.batch.recordings import find, watch
from whisper_npu.devices.opening import plan_lines
from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    """A request made ready: its recordings and its model are found, nothing is opened yet.

    say  hears what is downloaded, and what a person should know
    Raises OptionError, ModelError.
    """

    def __init__(self, request: Request, say: Callable[[str], None]) -> None:
        self._request = request = replace(request, transcribe=_with_words(request))
        self._say = say
        options = request.run
        self.recordings = [] if options.watch else _found(request)
        self._opening = workers.Opening(
            request.model, request.device, request.transcribe, offline=request.offline, say=say
        )
        written = request.batch.output_dir is not None
        # on stdout, transcripts keep the order of the recordings
        self._n_workers = options.workers or (
            self._opening.n_workers if written and not options.cluster else 1
        )

    @property
    def is_in_order(self) -> bool:
        """Whether one recording follows the other, so that text can be shown as it is heard."""
        return self._n_workers == 1 and not self._request.run.cluster

    def batch(self, listener: Listener) -> Batch:
        """What is to be done; `run` does it."""
        request = self._request
        queue: Iterable[Recording] = self.recordings
        if request.run.watch:
            queue = watch(request.inputs, request.search, lambda: batch.is_stopping)
        prepare = None if request.run.cluster else self._opening.prepare
        describe = self._opening.describe(request.batch.subtitles)
        batch = Batch(queue, request.batch, describe, prepare, listener)
        return batch

    def run(self, batch: Batch) -> None:
        """Work until all recordings have ended, or a signal comes.

        Raises what ends a batch: ModelError, DeviceError, OptionError, Interrupted.
        """
        request, options = self._request, self._request.run
        with finishing(batch.stop, self._say, keeping=request.batch.output_dir is not None):
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
                workers.run(batch, self._engine, self._n_workers, options.max_memory)

    def _engine(self, number: int, of: int) -> workers.ModelEngine:
        engine = self._opening.engine(number, of)
        if self._request.run.plan and number == 0:
            self._say("\n".join(plan_lines(engine.model.device)))
        return engine


def _with_words(request: Request) -> TranscribeOptions:
    """A page lets words follow the sound; subtitles laid out by words have to be asked for."""
    options = request.transcribe
    if "html" in request.batch.output_format:
        return replace(options, word_timestamps=True)
    if request.batch.subtitles.needs_words and not options.word_timestamps:
        raise OptionError("subtitles laid out by words need word_timestamps", "word_timestamps")
    return options


def _found(request: Request) -> list[Recording]:
    recordings, name = find(request.inputs, request.search), request.run.output_name
    if not recordings:
        raise OptionError("no recordings there: is --recursive or --include missing?")
    if name is None:
        return recordings
    if len(recordings) > 1:
        raise OptionError("output_name needs a single recording", "output_name")
    return [replace(recordings[0], output=name)]
