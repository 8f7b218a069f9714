"""What a device is: it encodes a window and decodes tokens; nobody looks inside its values.

A device that is emulated or modelled says so in its `name`, which every report and log line prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Observer = Callable[[str, Float], None]  # a layer's name in the checkpoint, its output (T, D)


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
    def name(self) -> str:
        """For people, as printed everywhere: "cpu int8", "npu fp16 (emulated rk3588)"."""
        ...

    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        """Encode one window.

        mel      (n_mels, 3000)  float32  30 s of log-mel, zero beyond the end of the audio
        observe  hears the output of each layer in order, as (T, D) float32; a device that runs
                 several layers in one call tells what it can see, at the least
                 model.encoder.layer_norm and the decoder's encoder_attn.k_proj and v_proj.
                 `observed.Observed` does it for any `Ops`
        return   opaque          what `session` wants; owned by this device
        """
        ...

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        """Begin to decode an encoded window; any number of sessions may share it."""
        ...

    def close(self) -> None: ...
