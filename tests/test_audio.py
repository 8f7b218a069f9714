"""Reading recordings, sound and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whisper_npu.audio import SAMPLE_RATE, open_audio
from whisper_npu.errors import AudioError

PUBLIC = Path(__file__).parents[2] / "shared/data/public_samples"
MANIFEST = PUBLIC / "manifest.jsonl"


def _recordings() -> list[Any]:
    if not MANIFEST.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no {MANIFEST}"))]
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return [pytest.param(entry, id=entry["file"]) for entry in map(json.loads, lines)]


@pytest.mark.parametrize("entry", _recordings())
def test_public_recordings(entry: dict[str, Any]) -> None:
    """Each is read for as long as its manifest says, or refused where that is expected."""
    path = PUBLIC / entry["file"]
    if entry["expect"] == "error":
        with pytest.raises(AudioError, match=entry["file"]), open_audio(path):
            pass
        return
    with open_audio(path) as audio:
        samples = np.concatenate([np.empty(0, np.float32), *audio.blocks])
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    sound = entry["expect"] in ("ok", "degraded", "empty", "empty or short")
    assert sound == (not audio.warnings)
    if entry["expect"] != "ok (partial)":  # a truncated mp3 still announces its full length
        lossy = 0.11 if entry["codec"] in ("mp3", "aac") else 0.01
        assert len(samples) / SAMPLE_RATE == pytest.approx(entry.get("seconds", 0), abs=lossy)
