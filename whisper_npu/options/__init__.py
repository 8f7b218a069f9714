"""Every choice that a person has, each declared once; no dataclass here imports anything heavy."""

from whisper_npu.options.batch import BatchOptions, InputOptions, RunOptions, ShowOptions
from whisper_npu.options.device import DeviceOptions
from whisper_npu.options.subtitles import SubtitleOptions
from whisper_npu.options.transcription import TranscribeOptions

__all__ = [
    "BatchOptions",
    "DeviceOptions",
    "InputOptions",
    "RunOptions",
    "ShowOptions",
    "SubtitleOptions",
    "TranscribeOptions",
]
