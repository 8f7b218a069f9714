"""Samples -> log-mel spectrogram, block by block; memory is flat in the length of the recording.

The scale depends on the loudest bin of the whole recording, so the spectrogram is kept without
its floor, in memory while it is short and in a temporary file beyond, and `LogMel.window` applies
the floor to what it hands out.
"""

from __future__ import annotations

import tempfile
import weakref
from contextlib import ExitStack
from functools import cache
from itertools import chain
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from whisper_npu.audio import SAMPLE_RATE
from whisper_npu.errors import OutputError
from whisper_npu.stages import stage, staged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

N_FFT = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
WINDOW = 3000  # frames: the 30 s that an encoder takes

_BATCH = 512  # frames transformed at once: their spectra fit a small cache
_STACK = 8  # frames multiplied at once: too few for a BLAS to start threads, which cost more here
_IN_MEMORY = 32 << 20  # bytes before a spectrogram moves to a file: 17 minutes at 80 mels
_SILENCE = -10.0  # log10 of the least power that counts
_RANGE = 8.0  # decades kept below the loudest bin


class LogMel:
    """The log-mel spectrogram of one recording, made by `log_mel`; for one thread at a time.

    n_mels    80 or 128
    n_frames  whole frames of 10 ms: where the recording's content ends
    duration  seconds
    """

    def __init__(self, rows: IO[bytes], n_mels: int, n_samples: int, loudest: float) -> None:
        self.n_mels = n_mels
        self.n_frames = n_samples // HOP
        self.duration = n_samples / SAMPLE_RATE
        self._rows = rows  # (frames, n_mels) float32: log10 of the power, no floor yet
        self._floor = max(_SILENCE, loudest - _RANGE)
        self.close = weakref.finalize(self, rows.close)

    @stage("features")
    def window(self, start: int, n_frames: int = WINDOW, *, silence: bool = False) -> Float:
        """One encoder window: `n_frames` frames (at most 3000) from frame `start` on.

        return  (n_mels, 3000)  float32  (log10(power) + 4) / 4, spanning at most 2

        Beyond those frames, and beyond the recording's content, come zeros, which is what the
        decoder was trained to hear there. They are far from silence in this scale. Language
        detection hears true silence behind the content instead: `silence`.
        """
        if not silence:
            n_frames = max(0, min(n_frames, self.n_frames - start))
        mel = np.zeros((self.n_mels, WINDOW), np.float32)
        mel[:, :n_frames] = (self._floor + 4) / 4
        self._rows.seek(start * self.n_mels * 4)
        data = self._rows.read(n_frames * self.n_mels * 4)
        rows = np.frombuffer(data, np.float32).reshape(-1, self.n_mels)  # (F, n_mels)
        mel[:, : len(rows)] = (np.maximum(rows, np.float32(self._floor)).T + 4) / 4
        return mel


@stage("features")
def log_mel(blocks: Iterable[Float], n_mels: int) -> LogMel:
    """Spectrogram of a whole recording: its scale is not that of its pieces.

    blocks  (S,) each  float32  mono at 16 kHz, in [-1, 1]; of any lengths

    Frame i is centred on sample 160 i; the recording is mirrored before its beginning and silent
    behind its end.
    Raises OutputError when the temporary file cannot be written, and what the blocks raise.
    Source: openai/whisper audio.py. That computes in float32 and is itself up to 4e-5 off, in bins
    8 decades below a loud neighbour; this stays within 1e-5 of the exact value.
    """
    n_samples = 0

    def counted() -> Iterator[Float]:
        nonlocal n_samples
        for block in staged("audio", blocks):
            n_samples += len(block)
            yield block

    filters = mel_filters(n_mels).T  # (201, n_mels)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)  # (400,), periodic
    loudest = _SILENCE
    with ExitStack() as undo:
        rows = undo.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
        for frames in _frames(counted()):
            spectrum = np.fft.rfft(frames * hann)  # (F, 201), float64 in every numpy
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
            # (F/8, 8, 201) x (201, n_mels) -> (F/8, 8, n_mels)
            energy = power.reshape(-1, _STACK, N_FFT // 2 + 1) @ filters
            log = np.log10(np.maximum(energy, 1e-10))
            loudest = max(loudest, float(log.max()))
            _write(rows, log)
        undo.pop_all()
    return LogMel(rows, n_mels, n_samples, loudest)


def _write(rows: IO[bytes], log: Float) -> None:
    try:
        rows.write(log.tobytes())
    except OSError as error:
        raise OutputError(
            f"no room for a spectrogram in {tempfile.gettempdir()} ({error.strerror}): an hour "
            f"takes {0.36 * 4 * log.shape[-1]:.0f} MB; free space there or set TMPDIR"
        ) from error


def _frames(blocks: Iterable[Float]) -> Iterator[Float]:
    """Overlapping frames of a recording up to the last that holds a sample, and silence to a whole
    stack: (F, 400) each.
    """
    silence = np.zeros(N_FFT + _STACK * HOP, np.float32)
    rest = np.empty(0, np.float32)  # begins with the first sample of the next frame
    mirrored = False
    for block in chain(blocks, [silence]):
        rest = np.concatenate([rest, block])
        if not mirrored and len(rest) > N_FFT // 2:
            rest = np.concatenate([rest[N_FFT // 2 : 0 : -1], rest])
            mirrored = True
        n_frames = ((len(rest) - N_FFT) // HOP + 1) // _STACK * _STACK
        if n_frames >= _BATCH or block is silence:
            frames = sliding_window_view(rest, N_FFT)[::HOP][:n_frames]  # (n_frames, 400)
            yield from (frames[i : i + _BATCH] for i in range(0, n_frames, _BATCH))
            rest = rest[n_frames * HOP :]


@cache
def mel_filters(n_mels: int) -> Float:
    """Triangular filters on the Slaney mel scale, each of unit area.

    return  (n_mels, 201)  float32  weights over the bins of a 400-point transform at 16 kHz

    Source: librosa.filters.mel, as used by openai/whisper; equal to its file within 1e-7.
    """
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)  # Hz
    corners = _hz(np.linspace(0, _mel(SAMPLE_RATE / 2), n_mels + 2))  # Hz: left, peak, right
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]  # (n_mels, 201)
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    area = (corners[2:] - corners[:-2])[:, None] / 2
    return (np.maximum(0, np.minimum(rising, falling)) / area).astype(np.float32)


# Slaney's scale: 200/3 Hz a mel up to 1 kHz, logarithmic above, 27 mels to a factor of 6.4


def _mel(hz: float) -> float:
    return 15 + 27 * np.log(hz / 1000) / np.log(6.4) if hz > 1000 else hz * 3 / 200


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel > 15, 1000 * 6.4 ** ((mel - 15) / 27), mel * 200 / 3)
