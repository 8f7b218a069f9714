"""Recordings -> encoder windows: what a graph is verified on, and what int8 learns from."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from whisper_npu.audio import open_audio
from whisper_npu.errors import AudioError
from whisper_npu.features import WINDOW, log_mel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

Item = TypeVar("Item")


def windows(source: Path, n_mels: int, most: int, n_frames: int = WINDOW) -> list[Float]:
    """Windows of a recording, or of recordings of a folder, from all over.

    n_frames  from the beginning of one window to that of the next
    return    (n_mels, 3000) float32 each, at most `most`, zeros after `n_frames` frames

    Raises AudioError when the recording, or everything in the folder, cannot be read.
    """
    if not source.is_dir():
        return _of_recording(source, n_mels, most, n_frames)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    random.Random(0).shuffle(files)  # noqa: S311  a choice, the same each time
    share = max(1, most // max(1, len(files)))  # windows of one recording
    found: list[Float] = []
    for path in files:
        if len(found) >= most:
            break
        with suppress(AudioError):  # a folder of recordings holds other files as well
            found += _of_recording(path, n_mels, share, n_frames)
    if not found:
        raise AudioError(f"{source} holds no recording that can be read")
    return found


def _of_recording(path: Path, n_mels: int, most: int, n_frames: int) -> list[Float]:
    with open_audio(path) as audio:
        mel = log_mel(audio.blocks, n_mels)
    starts = range(0, max(1, mel.n_frames), n_frames)
    return [mel.window(start, n_frames) for start in _spread(starts, most)]


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of them, at even distances, the first among them."""
    step = max(1.0, len(items) / most)
    return [items[int(i * step)] for i in range(min(most, len(items)))]
