"""Small recordings in several formats, and edits that break them."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "adpcm": ("WAV", "MS_ADPCM"),
    "float": ("WAV", "FLOAT"),
    "rf64": ("RF64", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_16"),
}
# numbers that headers and decoders are afraid of
VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
KINDS = ("byte", "little", "big", "cut", "drop", "repeat", "noise")


class Edit(NamedTuple):
    """One change of a file."""

    kind: str  # of KINDS
    where: float  # 0 to 1; most land in the header
    value: int  # a number to write, or how much


@cache
def recording(name: str) -> bytes:
    """Half a second of noise in one of FORMATS."""
    noise = np.random.RandomState(0).normal(0, 0.1, 8000).astype(np.float32)
    file = io.BytesIO()
    kind, subtype = FORMATS[name]
    soundfile.write(file, noise, 16000, format=kind, subtype=subtype)
    return file.getvalue()


def broken(data: bytes, edits: Iterable[Edit]) -> bytes:
    """A recording after some edits."""
    for kind, where, value in edits:
        at = min(int(where**4 * len(data)), max(0, len(data) - 1))
        size = 1 + value % 4096
        if kind == "byte":
            data = data[:at] + bytes([value & 0xFF]) + data[at + 1 :]
        elif kind in ("little", "big"):
            word = (value & 0xFFFFFFFF).to_bytes(4, "little" if kind == "little" else "big")
            data = data[:at] + word + data[at + 4 :]
        elif kind == "cut":
            data = data[: int(where * len(data))]
        elif kind == "drop":
            data = data[:at] + data[at + size :]
        elif kind == "repeat":
            data = data[: at + size] + data[at:]
        else:
            data = data[:at] + np.random.RandomState(value % 2**32).bytes(size) + data[at + size :]
    return data
