"""The CPU device without compiled kernels: numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.observed import Observed
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.reference import NumpyOps, NumpySession
from whisper_npu.stages import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Observer

    Float = NDArray[np.float32]


class NumpyDevice:
    """A `Device` in numpy: exact, and the slowest."""

    info = DeviceInfo("cpu f32, numpy", "cpu", "f32", "f32")

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = Whisper(checkpoint)
        self._ops = NumpyOps()

    @stage("encoder")
    def encode(
        self, mel: Float, *, observe: Observer | None = None
    ) -> Sequence[tuple[Float, Float]]:
        ops = Observed(self._ops, np.asarray, observe) if observe else self._ops
        features = encode(
            self._model, ops, np.ascontiguousarray(mel.T), n_positions=mel.shape[1] // 2
        )
        with stage("K/V"):
            return cross_keys_values(self._model, ops, features)

    def keep(self, pairs: Sequence[tuple[Float, Float]]) -> Sequence[tuple[Float, Float]]:
        """As `DecodingDevice`."""
        return [(key.copy(), value.copy()) for key, value in pairs]

    def session(
        self, encoded: Sequence[tuple[Float, Float]], *, beams: int = 1, align: bool = False
    ) -> NumpySession:
        del beams  # numpy arrays grow as needed
        return NumpySession(self._model, encoded, align=align)

    def close(self) -> None:
        del self._model
