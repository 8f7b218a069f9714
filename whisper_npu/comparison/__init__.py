"""The same recordings on several devices, one after the other -> what each of them made of it.

The first device is the measure of the others. Decoding is greedy and without fallback, so that
equal numbers give equal text. One model is in memory at a time. `verdict` judges the results.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisper_npu import probe
from whisper_npu.audio import open_audio
from whisper_npu.comparison.divergence import Watched
from whisper_npu.comparison.layers import LayerError, layer_errors, outputs
from whisper_npu.comparison.verdict import TOLERANCE, Attempt, Findings, Heard, judge
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import AudioError
from whisper_npu.events import WindowDone
from whisper_npu.features import log_mel
from whisper_npu.options import DeviceOptions, TranscribeOptions
from whisper_npu.stages import recording
from whisper_npu.tokenizer import Tokenizer
from whisper_npu.transcribe import Model
from whisper_npu.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.options import DeviceOptions

GREEDY = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None)


@dataclass(frozen=True)
class Task:
    """What to compare."""

    recordings: Sequence[str]
    checkpoint: Checkpoint
    devices: Sequence[DeviceOptions]
    references: Mapping[str, str] = field(default_factory=dict)  # recording -> what is said in it
    options: TranscribeOptions = GREEDY
    tolerance: float = TOLERANCE  # share of wrong words up to which a device is called safe
    say: Callable[[str], object] = str  # hears what is being done


def compare(task: Task) -> Findings:
    """Transcribe all recordings on all devices, and hold them against each other.

    Raises AudioError when no recording can be read, OptionError, ModelError, DeviceError.
    """
    failures: dict[str, str] = {}
    worked = [_work(task, device, failures) for device in task.devices]
    readable = [name for name in task.recordings if name not in failures]
    if not readable:
        raise AudioError("; ".join(failures.values()))
    checkpoint = task.checkpoint
    return Findings(
        model=checkpoint.name,
        machine=probe.name(),
        seconds_of_audio=sum(worked[0].runs[name].transcript.duration for name in readable),
        failures=failures,
        **judge(
            [work.only(readable) for work in worked],
            _layers(task, readable[0]),
            {name: task.references[name] for name in readable if name in task.references},
            Tokenizer(checkpoint),
            task.tolerance,
        ),
    )


def _work(task: Task, options: DeviceOptions, failures: dict[str, str]) -> Attempt:
    probe.forget_peak_memory()
    watched = Watched(open_device(task.checkpoint, options))
    with Model(task.checkpoint, watched) as model:
        runs = {}
        for name in task.recordings:
            if name in failures:
                continue
            task.say(f"{watched.info.name}: {name}")
            try:
                runs[name] = _run(name, model, watched, task.options)
            except AudioError as error:
                failures[name] = str(error)
        return Attempt(watched.info, runs, probe.peak_memory())


def _run(name: str, model: Model, watched: Watched, options: TranscribeOptions) -> Heard:
    watched.steps, watched.seconds = [], 0.0
    segments = []
    with recording() as stages:
        transcription = model.open(name, options)
        for event in transcription:
            if isinstance(event, Segment):
                segments.append(event)
            if isinstance(event, WindowDone):
                watched.seconds = event.seconds
        transcript = transcription.transcript(segments)
    return Heard(transcript, stages.seconds, tuple(watched.steps))


def _layers(task: Task, name: str) -> list[tuple[LayerError, ...]]:
    """Errors of each device's layers in the first window of a recording; none of the first."""
    if len(task.devices) < 2:
        return [()]
    task.say(f"layer by layer: {name}")
    with open_audio(name) as opened:
        mel = log_mel(opened.blocks, task.checkpoint.dims.n_mels).window(0)
    with closing(open_device(task.checkpoint, task.devices[0])) as first:
        expected = outputs(first, mel)
    errors: list[tuple[LayerError, ...]] = [()]
    for options in task.devices[1:]:
        with closing(open_device(task.checkpoint, options)) as device:
            errors.append(tuple(layer_errors(expected, device, mel)))
    return errors
