"""Log-mel against openai/whisper's formula."""

from __future__ import annotations

import numpy as np
import pytest

from whisper_npu.features import HOP, WINDOW, LogMel, log_mel, mel_filters


def _whole(mel: LogMel) -> np.ndarray:
    windows = [mel.window(start) for start in range(0, mel.n_frames, WINDOW)]
    return np.concatenate(windows, axis=1)[:, : mel.n_frames]


def test_silence_beyond_the_end() -> None:
    """The decoder hears zeros there, language detection hears silence."""
    rng = np.random.default_rng(0)
    mel = log_mel([rng.normal(0, 0.1, 16000).astype(np.float32)], 80)
    assert mel.n_frames == 100
    assert mel.duration == 1.0
    decoder = mel.window(0)
    assert decoder.shape == (80, 3000)
    assert not decoder[:, 100:].any()
    assert decoder[:, :100].min() > -1
    detection = mel.window(0, silence=True)
    np.testing.assert_array_equal(detection[:, :100], decoder[:, :100])
    floor = detection[:, 102:]
    assert floor.min() == floor.max() == pytest.approx(decoder.max() - 2, abs=1e-6)


def test_blocks_of_any_length_give_the_same() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 50_000).astype(np.float32)
    whole = _whole(log_mel([samples], 80))
    assert whole.shape == (80, 50_000 // HOP)
    for size in (37, 4096):
        pieces = (samples[i : i + size] for i in range(0, len(samples), size))
        np.testing.assert_allclose(_whole(log_mel(pieces, 80)), whole, atol=1e-6)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_have_unit_area(n_mels: int) -> None:
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, 201)
    assert (filters >= 0).all()
    np.testing.assert_allclose(filters[-10:].sum(axis=1) * 40, 1, rtol=0.02)  # 40 Hz a bin
