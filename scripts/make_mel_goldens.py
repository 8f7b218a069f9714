#!/usr/bin/env python3
"""openai/whisper's own log-mel of made-up signals -> tests/data/log_mel.npz, a few frames of each.

Needs `pip install openai-whisper`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import whisper

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_features import GOLDEN_FRAMES, SIGNALS  # noqa: E402  the signals live beside their test


def main() -> None:
    goldens = {}
    for name, signal in SIGNALS.items():
        for n_mels in (80, 128):
            mel = whisper.log_mel_spectrogram(signal(), n_mels, padding=480000)
            goldens[f"{name}_{n_mels}"] = mel.numpy()[:, :-3000][:, GOLDEN_FRAMES]
    path = ROOT / "tests/data/log_mel.npz"
    np.savez_compressed(path, **goldens)
    print(f"{path}: {path.stat().st_size} bytes, whisper {whisper.__version__}")


if __name__ == "__main__":
    main()
