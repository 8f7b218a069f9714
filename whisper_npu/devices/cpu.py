"""The CPU device: a native engine for this processor, or numpy where there is none."""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import weights_cache
from whisper_npu.devices import cores, packed
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.meeting import Meeting
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.errors import OptionError
from whisper_npu.kernels import native
from whisper_npu.messages import warn_once
from whisper_npu.model import Whisper
from whisper_npu.stages import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import DecodingDevice, Observer, Session

    Float = NDArray[np.float32]

_log = logging.getLogger(__name__)

PRECISIONS = {"f32": packed.F32, "f16": packed.F16, "int8": packed.INT8}
# encoder, decoder. A decoder step waits for memory, so int8 halves it. An encoder waits for
# arithmetic: int8 is the faster one wherever there is a dot product for it (docs/cpu.md has times
# and errors).
AUTO = {
    "avx512": ("int8", "int8"),
    "avx2": ("f16", "int8"),
    "neon": ("int8", "int8"),
    "portable": ("f32", "int8"),
}


def open_cpu(
    checkpoint: Checkpoint,
    *,
    precision: str = "auto",
    threads: int | None = None,
    short_windows: bool = False,
) -> DecodingDevice:
    """The best there is here for these options, as `DeviceOptions` has checked them.

    Raises OptionError for a precision that needs kernels which are not there.
    """
    if native is None:
        if precision not in ("auto", "f32"):
            raise OptionError(
                f"precision: {precision} needs the compiled kernels, f32 does not", "precision"
            )
        warn_once(
            _log, "no compiled kernels: numpy does their work, far more slowly (whisper-npu doctor)"
        )
        return NumpyDevice(checkpoint)
    isa = native.instruction_sets()[0]
    encoder, decoder = AUTO[isa] if precision == "auto" else (precision, precision)
    return CpuDevice(
        checkpoint, isa, encoder, decoder, cores.choose(threads), short_windows=short_windows
    )


class CpuDevice:
    """A `Device` on the native engine.

    isa               an instruction set of kernels.status()
    encoder, decoder  precision of their linear layers: f32, f16 (bfloat16 on x86) or int8

    Threads that decode at the same time take their steps together.
    """

    def __init__(  # noqa: PLR0913  what one engine is made of
        self,
        checkpoint: Checkpoint,
        isa: str,
        encoder: str,
        decoder: str,
        on: cores.Threads,
        *,
        short_windows: bool = False,
    ) -> None:
        name = "cpu " + (encoder if encoder == decoder else f"{encoder}+{decoder}")
        self.info = DeviceInfo(name, "cpu", encoder, decoder, short_windows=short_windows)
        self._checkpoint = checkpoint
        self._isa = isa
        self._kinds = PRECISIONS[encoder], PRECISIONS[decoder]
        self._cores = on
        self._meeting = Meeting(lambda wanted: self._engine.step(wanted))  # noqa: PLW0108  opened later
        self._door = threading.Lock()

    @cached_property
    def _model(self) -> Whisper:
        return Whisper(self._checkpoint)

    @property
    def _engine(self) -> Any:
        with self._door:  # opened once, by whichever thread comes first
            return self._opened

    @cached_property
    def _opened(self) -> Any:
        assert native is not None  # noqa: S101  open_cpu has asked
        model = Whisper(self._checkpoint)  # not kept: its tensors are only needed to be packed
        encoder, decoder = self._kinds
        weights = weights_cache.open_weights(
            self._checkpoint,
            packed.order(encoder, decoder),
            packed.VERSION,
            lambda: packed.arrays(model, encoder, decoder),
        )
        return native.Engine(
            self._isa, packed.sizes(model), weights, decoder, self._cores.threads,
            list(self._cores.pinned),
        )  # fmt: skip

    @stage("encoder")
    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        show = packed.shown(self._model, observe) if observe else None
        features = self._engine.features(np.ascontiguousarray(mel, np.float32), show)
        with stage("K/V"):
            return self._engine.project(features, show)

    def keep(self, pairs: Sequence[tuple[Float, Float]]) -> Any:
        """As `DecodingDevice`."""
        with stage("K/V"):
            return self._engine.keep(
                [tuple(np.ascontiguousarray(array, np.float32) for array in pair) for pair in pairs]
            )

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        heads = list(self._checkpoint.alignment_heads) if align else []
        return _CpuSession(self._engine.session(encoded, beams, heads), self._meeting)

    def close(self) -> None:
        self.__dict__.pop("_opened", None)


class _CpuSession:
    """A `Session` of the engine."""

    def __init__(self, decoding: Any, meeting: Meeting) -> None:
        self._decoding = decoding
        self._meeting = meeting
        meeting.join()

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        tokens = np.ascontiguousarray(tokens, np.int64)
        return self._meeting.step((self._decoding, tokens, every_position))

    def reorder(self, sources: Sequence[int]) -> None:
        self._decoding.reorder([int(source) for source in sources])

    def attention(self) -> Float:
        return self._decoding.attention()

    def close(self) -> None:
        del self._decoding
        self._meeting.leave()
