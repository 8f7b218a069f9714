"""What a device is: it encodes a window and decodes tokens; nobody looks inside its values.

`decoding` and `transcribe` see `Device` and `Session`; `model` sees `Ops`. A device that is
emulated or modelled says so in its `name`, which every report and log line prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from whisper_npu.errors import DeviceError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.model import Conv, Linear, Norm

    Float = NDArray[np.float32]
    Observer = Callable[[str, Float], None]  # a layer's name in the checkpoint, its output (T, D)

A = TypeVar("A")  # an activation in the device's own order: row-major, NPU tiles, ...


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


class Ops(Protocol[A]):
    """The layers a Whisper encoder is made of, over activations in the device's own order."""

    def conv_gelu(self, x: A, conv: Conv, stride: int) -> A: ...

    def add(self, x: A, rows: Float) -> A: ...

    def layer_norm(self, x: A, norm: Norm) -> A: ...

    def linear(
        self, x: A, linear: Linear, *, gelu: bool = False, residual: A | None = None
    ) -> A: ...

    def attention(self, query: A, key: A, value: A, n_heads: int) -> A: ...


@dataclass(frozen=True)
class DeviceOptions:
    """How to open a device."""

    device: str = "auto"  # auto, cpu or npu
    precision: str = "auto"  # of the CPU's weights: f32, f16, int8
    npu_precision: str = "auto"  # of the NPU's: fp16, int8
    threads: int | None = None  # of the CPU; None: one for each big core
    npu_path: str = "auto"  # layers, graph (compiled with the vendor's toolchain), or the faster
    npu_cores: int = 1  # for a graph; layers use them all
    share: tuple[int, int] = (0, 1)  # of the NPU's cores and the CPU's threads: number, of how many
    short_windows: bool = False  # graphs of 10 and 20 s for less sound: an approximation
    emulate: str | None = None  # run the npu device on the emulated NPU of this chip: rk3588
    rknnrt: str | None = None  # the vendor's library, where it is not in its usual place
    plan: bool = False  # tell which layers run where

    def mine(self, cores: Sequence[int]) -> Sequence[int]:
        """The share of these cores: all of them for one; at least one for each of many."""
        number, of = self.share
        return cores[number % len(cores) :: min(of, len(cores))] if of > 1 else cores

    @classmethod
    def named(cls, name: str, emulate: str | None = None) -> DeviceOptions:
        """How comparisons name devices: "cpu", "cpu-int8", "npu-fp16", "npu-int8-graph".

        The NPU's decoder is the CPU's: "npu-fp16+f32" has it in f32.
        """
        device, *rest = name.split("-")
        path = rest.pop() if rest and rest[-1] in ("layers", "graph") else "auto"
        precision = "-".join(rest) or "auto"
        if device != "npu":
            return cls(device, precision=precision)
        encoder, _, decoder = precision.partition("+")
        return cls(
            device,
            precision=decoder or "auto",
            npu_precision=encoder,
            npu_path=path,
            emulate=emulate,
        )


def open_device(checkpoint: Checkpoint, options: DeviceOptions) -> Device:
    """Open a device by name for one model.

    `npu` never falls back; `auto` takes the NPU when it is usable, else the CPU.
    Raises OptionError for an unknown name, DeviceError when it cannot be opened.
    """
    if options.device not in ("auto", "cpu", "npu"):
        raise OptionError(f"unknown device {options.device!r}: use auto, cpu or npu")
    if options.device == "cpu" and options.emulate is not None:
        raise OptionError("--emulate needs --device npu")
    from whisper_npu.devices.auto import AutoDevice
    from whisper_npu.devices.cpu import open_cpu

    if options.device == "cpu":
        return open_cpu(checkpoint, precision=options.precision, threads=options.threads)
    if options.device == "auto":
        return AutoDevice(checkpoint, options)
    from whisper_npu.devices.npu_path import open_npu

    return open_npu(checkpoint, options)


def npu_cores(options: DeviceOptions) -> int:
    """How many NPU cores these options find; 1 without an NPU."""
    from whisper_npu.devices.npu import find_npu

    if options.device == "cpu":
        return 1
    try:
        return find_npu(options)[0].cores
    except DeviceError:
        return 1


def plan_lines(device: Device) -> list[str]:
    """Which layers run where, for people."""
    plan = getattr(device, "plan", None)
    return plan.lines() if plan else [f"{device.name}: no plan, every layer runs on the CPU"]
