"""Recordings -> windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from whisper_npu.errors import AudioError
from whisper_npu.graphs.calibration import windows

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, seconds: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000 * seconds)
    soundfile.write(path, noise, 16000)
    return path


def test_a_recording_in_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 25)
    assert len(windows(path, 80, 9)) == 1
    tens = windows(path, 80, 9, n_frames=1000)
    assert [int(np.flatnonzero(mel.any(axis=0))[-1]) + 1 for mel in tens] == [1000, 1000, 500]
    assert len(windows(path, 80, 2, n_frames=500)) == 2


def test_a_folder_of_all_sorts(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / "speech" / f"{i}.wav", 1)
    (tmp_path / "speech" / "notes.txt").write_text("not a recording")
    assert len(windows(tmp_path / "speech", 80, 20)) == 5
    assert len(windows(tmp_path / "speech", 128, 2)) == 2


def test_nothing_to_hear(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a recording")
    with pytest.raises(AudioError, match="holds no recording"):
        windows(tmp_path, 80, 3)
    with pytest.raises(AudioError, match="nowhere"):
        windows(tmp_path / "nowhere.wav", 80, 3)
