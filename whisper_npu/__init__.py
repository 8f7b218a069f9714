"""Speech to text with OpenAI's Whisper, on Rockchip NPUs and on any CPU.

    import whisper_npu

    with whisper_npu.load_model("base") as model:
        for segment in model.segments("talk.mp3"):
            print(segment.start, segment.text)
        options = whisper_npu.TranscribeOptions(word_timestamps=True)
        transcript = model.transcribe("talk.mp3", options)

Axes have one letter in the whole house: S samples, F frames, C audio positions, D width, H heads,
B beams, T tokens, V vocabulary, M/K/N matmul sizes.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.errors import (
        AudioError,
        DeviceError,
        DeviceFault,
        ModelError,
        OptionError,
        OutputError,
        WhisperNpuError,
    )
    from whisper_npu.live.stream import SpeechStream
    from whisper_npu.options import DeviceOptions, TranscribeOptions
    from whisper_npu.options.live import StreamOptions
    from whisper_npu.transcribe import Model
    from whisper_npu.transcript import Segment, Transcript, Word

__all__ = [
    "AudioError",
    "DeviceError",
    "DeviceFault",
    "DeviceOptions",
    "Model",
    "ModelError",
    "OptionError",
    "OutputError",
    "Segment",
    "SpeechStream",
    "StreamOptions",
    "TranscribeOptions",
    "Transcript",
    "WhisperNpuError",
    "Word",
    "load_model",
]

if any(file for place in __path__ for file in Path(place).glob("kernels/_native*")):
    # compiled kernels do the work: the threads of BLAS would spin in their way. numpy reads this
    # when it is imported; whoever has set it, or imported numpy before us, is left alone
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def load_model(
    name: str | Path | None = None,
    *,
    device: str | DeviceOptions = "auto",
    offline: bool = False,
    say: Callable[[str], None] | None = None,
) -> Model:
    """Open a model by name (downloaded when it is not here) or by folder.

    name     None: base, or tiny where there is little memory; where that can neither be found nor
             downloaded, the best model that is here
    device   auto, cpu or npu, or more about it
    offline  never use the network
    say      hears what is downloaded, and how big; default: the log

    Raises OptionError (no such device), ModelError, OutputError (a full disk), DeviceError.
    """
    from whisper_npu import sources
    from whisper_npu.devices.opening import open_device
    from whisper_npu.options import DeviceOptions
    from whisper_npu.transcribe import Model

    wanted = None if name is None else str(name)
    checkpoint = sources.open_checkpoint(wanted, offline=offline, say=say)
    options = device if isinstance(device, DeviceOptions) else DeviceOptions(device)
    return Model(checkpoint, open_device(checkpoint, options))


# what is exported by name, and the module it is imported from when it is asked for: --help needs
# neither numpy nor a tokenizer
_EXPORTED = {
    "TranscribeOptions": "options",
    "DeviceOptions": "options",
    "StreamOptions": "options.live",
    "Model": "transcribe",
    "SpeechStream": "live.stream",
    "Transcript": "transcript",
    "Segment": "transcript",
    "Word": "transcript",
    "WhisperNpuError": "errors",
    "OptionError": "errors",
    "AudioError": "errors",
    "ModelError": "errors",
    "DeviceError": "errors",
    "DeviceFault": "errors",
    "OutputError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTED[name]}"), name)
