"""What several devices made of the same recordings -> how far apart they are, and which is safe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from statistics import fmean
from typing import TYPE_CHECKING, TypedDict

from whisper_npu.comparison.accuracy import Difference, Errors, difference
from whisper_npu.comparison.divergence import DecoderStep, Divergence, first_divergence
from whisper_npu.comparison.layers import LayerError, suspect
from whisper_npu.errors import ToleranceError
from whisper_npu.figures import Figure, Origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from whisper_npu.devices.device import DeviceInfo
    from whisper_npu.tokenizer import Tokenizer
    from whisper_npu.transcript import Transcript

TOLERANCE = 0.01
JUDGEABLE = 0.5  # share of wrong words beyond which a model says nothing about a device


@dataclass(frozen=True)
class Heard:
    """One recording on one device."""

    transcript: Transcript
    seconds: dict[str, float]  # by stage
    steps: tuple[DecoderStep, ...]


@dataclass(frozen=True)
class Attempt:
    """All that one device has done."""

    device: DeviceInfo
    runs: dict[str, Heard]  # by recording
    peak_memory: int | None  # bytes

    @property
    def name(self) -> str:
        """The device's."""
        return self.device.name

    @property
    def origin(self) -> Origin:
        """Whether its times are those of the hardware it is named after."""
        return self.device.origin

    @property
    def total(self) -> float:
        """Seconds of work."""
        return sum(sum(run.seconds.values()) for run in self.runs.values())

    def only(self, recordings: Collection[str]) -> Attempt:
        """The same without the other recordings."""
        return replace(self, runs={name: self.runs[name] for name in recordings})


@dataclass(frozen=True)
class Drift:
    """How far the times of the same words, or of the same segments, are apart."""

    n: int
    mean: float  # seconds, of starts and ends
    worst: float


@dataclass(frozen=True)
class Comparison:
    """One recording on one device, held against the first device and the reference."""

    transcript: Transcript
    against_first: Difference
    against_reference: Difference | None
    divergence: Divergence | None
    drift: Drift | None


@dataclass(frozen=True)
class RecordingResult:
    """One recording on all devices, in their order."""

    name: str
    reference: str | None
    devices: tuple[Comparison, ...]


@dataclass(frozen=True)
class Accuracy:
    """Words over all recordings; characters in a language without spaces."""

    against_first: Errors
    against_reference: Errors | None  # over the recordings that have one
    first_against_reference: Errors | None  # what the first device makes of the same


@dataclass(frozen=True)
class DeviceResult:
    """One device over all recordings."""

    name: str
    seconds: dict[str, Figure]  # by stage
    real_time_factor: Figure  # time of work over time of audio
    speed_up: Figure  # over the first device
    peak_memory: int | None  # bytes
    accuracy: Accuracy
    layers: tuple[LayerError, ...]  # against the first device, in the first window
    suspect: LayerError | None
    safe: bool
    verdict: str


@dataclass(frozen=True)
class Findings:
    """All that a comparison found."""

    model: str
    machine: str
    seconds_of_audio: float
    failures: dict[str, str]  # recording -> why it could not be read
    devices: tuple[DeviceResult, ...]
    recordings: tuple[RecordingResult, ...]


class Judged(TypedDict):
    """The part of the findings that is judged here."""

    devices: tuple[DeviceResult, ...]
    recordings: tuple[RecordingResult, ...]


def judge(
    worked: Sequence[Attempt],
    layers: Sequence[tuple[LayerError, ...]],
    references: Mapping[str, str],
    tokenizer: Tokenizer,
    tolerance: float,
) -> Judged:
    """Hold every device against the first. Raises OptionError without the extra `compare`."""
    recordings = tuple(
        RecordingResult(
            name,
            references.get(name),
            tuple(
                _comparison(worked[0].runs[name], work.runs[name], references.get(name), tokenizer)
                for work in worked
            ),
        )
        for name in worked[0].runs
    )
    devices = []
    for i, work in enumerate(worked):
        accuracy = _accuracy([(result.devices[0], result.devices[i]) for result in recordings])
        result = _device(work, worked[0], accuracy, layers[i])
        safe, verdict = (
            _verdict(result, worked[0].name, tolerance)
            if i
            else (True, "the measure of the others")
        )
        devices.append(replace(result, safe=safe, verdict=verdict))
    return Judged(devices=tuple(devices), recordings=recordings)


def _comparison(
    first: Heard, run: Heard, reference: str | None, tokenizer: Tokenizer
) -> Comparison:
    language, text = first.transcript.language, run.transcript.text
    return Comparison(
        run.transcript,
        difference(first.transcript.text, text, language),
        None if reference is None else difference(reference, text, language),
        first_divergence(first.steps, run.steps, tokenizer),
        drift(first.transcript, run.transcript),
    )


def _accuracy(pairs: Sequence[tuple[Comparison, Comparison]]) -> Accuracy:
    """Sums over recordings, each as the first device and this one have it."""
    known = [
        (first.against_reference.words, this.against_reference.words)
        for first, this in pairs
        if first.against_reference and this.against_reference
    ]
    return Accuracy(
        sum((this.against_first.words for _, this in pairs), Errors()),
        sum((this for _, this in known), Errors()) if known else None,
        sum((first for first, _ in known), Errors()) if known else None,
    )


def _device(
    work: Attempt, first: Attempt, accuracy: Accuracy, layers: tuple[LayerError, ...]
) -> DeviceResult:
    stages = dict.fromkeys(stage for run in work.runs.values() for stage in run.seconds)
    duration = sum(run.transcript.duration for run in work.runs.values())
    either: Origin = "emulated" if "emulated" in (work.origin, first.origin) else "measured"
    return DeviceResult(
        name=work.name,
        seconds={
            stage: Figure(
                sum(run.seconds.get(stage, 0.0) for run in work.runs.values()), "s", work.origin
            )
            for stage in stages
        },
        real_time_factor=Figure(work.total / max(duration, 1e-9), "", work.origin),
        speed_up=Figure(first.total / max(work.total, 1e-9), "x", either),
        peak_memory=work.peak_memory,
        accuracy=accuracy,
        layers=layers,
        suspect=suspect(layers),
        safe=False,
        verdict="",
    )


def _verdict(device: DeviceResult, first: str, tolerance: float) -> tuple[bool, str]:
    """Whether a device may be trusted, and why, in a sentence."""
    if device.suspect is not None:
        name, error = device.suspect.name, device.suspect.relative
        return False, f"fault suspected in {name}: its error is {error:.0%}"
    accuracy = device.accuracy
    worse = accuracy.against_first.rate
    if worse == 0:
        return True, f"the same words as {first}"
    said = f"{worse:.2%} of the words differ from {first}"
    if accuracy.against_reference and accuracy.first_against_reference:
        after, before = accuracy.against_reference.rate, accuracy.first_against_reference.rate
        said += f"; {after:.2%} are wrong by the references, {before:.2%} on {first}"
        worse = after - before
        if before > JUDGEABLE:
            return False, f"{said}: too many to judge by"
    return worse <= tolerance, said


def require(findings: Findings, limit: float) -> None:
    """Raises ToleranceError when a device differs more than `limit` from the first.

    A single device is held against the references instead.
    """
    first, *others = findings.devices
    rates = {device.name: device.accuracy.against_first.rate for device in others}
    if not others and first.accuracy.against_reference is not None:
        rates = {first.name: first.accuracy.against_reference.rate}
    beyond = [f"{name} {rate:.2%}" for name, rate in rates.items() if rate > limit]
    if beyond:
        raise ToleranceError(f"more than {limit:.2%} of the words differ: {', '.join(beyond)}")


def drift(one: Transcript, other: Transcript) -> Drift | None:
    """Compare the times of what both heard; None: nothing was heard by both."""
    timed = all(segment.words is not None for t in (one, other) for segment in t.segments)
    a, b = (list(_spans(transcript, words=timed)) for transcript in (one, other))
    matcher = SequenceMatcher(None, [s[0] for s in a], [s[0] for s in b], autojunk=False)
    apart = [
        abs(mine - theirs)
        for i, j, n in matcher.get_matching_blocks()
        for here, there in zip(a[i : i + n], b[j : j + n], strict=True)
        for mine, theirs in zip(here[1:], there[1:], strict=True)
    ]
    return Drift(len(apart) // 2, fmean(apart), max(apart)) if apart else None


def _spans(transcript: Transcript, *, words: bool) -> Iterator[tuple[str, float, float]]:
    for segment in transcript.segments:
        for part in (segment.words or ()) if words else (segment,):
            if part.text.strip():
                yield part.text.strip().casefold(), part.start, part.end
