"""What a device is: it encodes a window and decodes tokens; nobody looks inside its values.

Its `info` tells what it is; the `name` in there says so if it is emulated, and is for people alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whisper_npu.figures import Origin

    Float = NDArray[np.float32]
    Observer = Callable[[str, Float], None]  # a layer's name in the checkpoint, its output (T, D)


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is."""

    name: str  # for people alone, never read back: "npu fp16 (emulated rk3588)"
    kind: Literal["cpu", "npu", "graph"]
    precision: str  # of the encoder
    decoder_precision: str  # always the CPU's
    chip: str = ""  # of an NPU
    origin: Origin = "measured"  # or emulated: then its times are no board's
    plan: tuple[str, ...] = ()  # of an NPU layer by layer, for people: what runs where
    short_windows: bool = False  # less than 30 s of sound are to be encoded as a shorter window


class Session(Protocol):
    """One window being decoded: the key/value cache of one to `beams` hypotheses.

    It starts with one row; `reorder` makes more of them.
    """

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        """Append tokens to each row and predict what follows.

        tokens  (B, T)     int64    T > 1 for a prompt, 1 in the loop; B as of the last reorder
        return  (B, V)     float32  logits after the last token, the caller's to change
                (B, T, V)           with every_position
        """
        ...

    def reorder(self, sources: Sequence[int]) -> None:
        """Row i continues row sources[i]; the number of rows becomes len(sources) <= beams."""
        ...

    def attention(self) -> Float:
        """Cross-attention of the alignment heads for every token so far (opened with align).

        return  (A, T, C)  float32  scores before the softmax, row 0; C = audio positions
        """
        ...

    def close(self) -> None: ...


class Device(Protocol):
    """Runs one model. Errors: DeviceError when opened, DeviceFault from any call."""

    @property
    def info(self) -> DeviceInfo: ...

    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        """Encode one window.

        mel      (n_mels, F)  float32  log-mel, zero beyond the end of the audio; F = 3000, or an
                 even number below: a shorter window is less work, and an approximation, as
                 Whisper was trained to hear 30 s
        observe  hears the output of each layer in order, as (T, D) float32; a device that runs
                 several layers in one call tells what it can see, at the least the decoder's
                 encoder_attn.k_proj and v_proj. `observed.Observed` does it for any `Ops`
        return   opaque          what `session` wants; owned by this device
        """
        ...

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        """Begin to decode an encoded window; any number of sessions may share it.

        Any number of threads may encode and decode windows of their own at the same time.
        """
        ...

    def close(self) -> None: ...


class DecodingDevice(Device, Protocol):
    """A device that also decodes what another one has encoded."""

    def keep(self, pairs: Sequence[tuple[Float, Float]]) -> Any:
        """Take the keys and values of one window, once; what they came in may change afterwards.

        pairs   per decoder layer: key and value (C, D) float32; C may be less than the model's
        return  opaque  what `session` wants
        """
        ...


def padded(mel: Float, n_frames: int) -> Float:
    """A window made as long as a device needs it: (n_mels, F) -> (n_mels, n_frames), with zeros."""
    return np.pad(mel, ((0, 0), (0, n_frames - mel.shape[1])))
