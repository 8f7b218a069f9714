"""Log-mel against its definition in float64 and against openai/whisper's own output."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from whisper_npu import features
from whisper_npu.audio import open_audio
from whisper_npu.errors import OutputError
from whisper_npu.features import HOP, WINDOW, LogMel, log_mel, mel_filters

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

GOLDENS = Path(__file__).parent / "data/log_mel.npz"
PUBLIC = Path(__file__).parents[2] / "shared/data/public_samples"
GOLDEN_FRAMES = slice(None, None, 200)  # stored in the file; the last of a signal is among them

EXACT = 1e-5
OPENAI = 5e-5  # openai/whisper computes in float32 and is up to 4e-5 off the exact value itself


def _time(seconds: float) -> NDArray[np.float64]:
    return np.arange(int(16000 * seconds)) / 16000


def _noise() -> Float:
    return np.random.RandomState(0).normal(0, 0.1, 16000 * 4 + 77).astype(np.float32)


def _tone() -> Float:
    return (0.9 * np.sin(2 * np.pi * 440 * _time(4))).astype(np.float32)


def _silence() -> Float:
    return np.zeros(16000 * 4, np.float32)


def _voice() -> Float:
    """Harmonics of a moving pitch in syllables, with pauses of digital silence: 36 s."""
    time = _time(36.01)
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / 16000
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.maximum(0, np.sin(2 * np.pi * 1.7 * time)) * (np.sin(0.9 * time) > -0.5)
    return np.asarray(0.2 * harmonics * syllables, np.float32)


SIGNALS: dict[str, Callable[[], Float]] = {
    "noise": _noise,
    "tone": _tone,
    "silence": _silence,
    "voice": _voice,
}


def _whole(mel: LogMel) -> Float:
    windows = [mel.window(start) for start in range(0, mel.n_frames, WINDOW)]
    return np.concatenate(windows, axis=1)[:, : mel.n_frames]


def _exact(samples: Float, n_mels: int) -> NDArray[np.float64]:
    """The definition, in float64, of a recording and the 30 s of silence appended to it."""
    padded = np.pad(np.append(samples, np.zeros(480_000)), 200, mode="reflect")
    starts = range(0, len(samples) + 480_000 - HOP + 1, HOP)
    window = np.sin(np.pi * np.arange(400) / 400) ** 2
    power = np.abs(np.fft.rfft([padded[s : s + 400] * window for s in starts])) ** 2
    log = np.log10(np.maximum(power @ mel_filters(n_mels).T.astype(np.float64), 1e-10))
    return (np.maximum(log, log.max() - 8).T + 4) / 4


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("name", SIGNALS)
def test_equals_its_definition(name: str, n_mels: int) -> None:
    samples = SIGNALS[name]()
    mel = log_mel([samples], n_mels)
    expected = _exact(samples, n_mels)
    assert mel.n_frames == expected.shape[1] - 3000
    np.testing.assert_allclose(_whole(mel), expected[:, : mel.n_frames], rtol=0, atol=EXACT)
    detection = mel.window(0, silence=True)
    np.testing.assert_allclose(detection, expected[:, :3000], rtol=0, atol=EXACT)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("name", SIGNALS)
def test_equals_openai_whisper(name: str, n_mels: int) -> None:
    """Goldens by scripts/make_mel_goldens.py."""
    with np.load(GOLDENS) as goldens:
        expected = goldens[f"{name}_{n_mels}"]
    mel = _whole(log_mel([SIGNALS[name]()], n_mels))[:, GOLDEN_FRAMES]
    assert mel.shape == expected.shape
    np.testing.assert_allclose(mel, expected, rtol=0, atol=OPENAI)


@pytest.mark.parametrize("file", ["jfk.flac", "long_digits.flac", "short_0.05s.wav"])
def test_equals_openai_whisper_on_speech(file: str) -> None:
    whisper: Any = pytest.importorskip("whisper")
    if not PUBLIC.exists():
        pytest.skip(f"no {PUBLIC}")
    with open_audio(PUBLIC / file) as audio:
        samples = np.concatenate(list(audio.blocks))
    expected = whisper.log_mel_spectrogram(samples, 80, padding=480_000).numpy()
    mel = log_mel([samples], 80)
    np.testing.assert_allclose(_whole(mel), expected[:, :-3000], rtol=0, atol=OPENAI)


@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 200, 201, 400, 16000 * 30])
def test_lengths_around_the_edges(n_samples: int) -> None:
    samples = _noise()[:1].repeat(n_samples)
    mel = log_mel([samples], 80)
    assert mel.n_frames == n_samples // HOP
    assert mel.duration == n_samples / 16000
    expected = _exact(samples, 80)[:, :3000]
    np.testing.assert_allclose(mel.window(0, silence=True), expected, rtol=0, atol=EXACT)


def test_the_decoder_hears_zeros_beyond_the_end() -> None:
    mel = log_mel([_noise()], 80)  # 400 frames and a rest
    decoder = mel.window(300)
    detection = mel.window(300, silence=True)
    np.testing.assert_array_equal(decoder[:, :100], detection[:, :100])
    assert not decoder[:, 100:].any()
    floor = mel.window(0, silence=True).max() - 2
    assert detection[:, 104:].min() == detection.max(where=np.arange(3000) > 103, initial=-2)
    assert detection[0, -1] == pytest.approx(floor, abs=1e-6)


def test_a_window_ends_where_it_is_told() -> None:
    mel = log_mel([_noise()], 80)
    window = mel.window(50, 20)
    np.testing.assert_array_equal(window[:, :20], mel.window(50)[:, :20])
    assert not window[:, 20:].any()
    assert not mel.window(400).any()
    assert not mel.window(10_000).any()


def test_the_floor_follows_the_loudest_bin_of_the_whole_recording() -> None:
    alone = log_mel([1e-4 * _noise()], 80).window(0, 400)[:, :400]
    together = log_mel([1e-4 * _noise(), _silence(), _noise()], 80)
    loudest = together.window(400).max()
    assert alone.min() < loudest - 2
    assert together.window(0, 400)[:, :400].min() == pytest.approx(loudest - 2, abs=1e-6)


@pytest.mark.parametrize("size", [37, 4096])
def test_blocks_of_any_length_give_the_same(size: int) -> None:
    samples = _noise()
    pieces = (samples[i : i + size] for i in range(0, len(samples), size))
    expected = _whole(log_mel([samples], 80))
    np.testing.assert_allclose(_whole(log_mel(pieces, 80)), expected, rtol=0, atol=1e-6)


def test_memory_is_flat_in_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_IN_MEMORY", 1 << 20)
    block = _noise()
    tracemalloc.start()
    mel = log_mel((block for _ in range(600)), 80)  # 40 minutes, 77 MB of spectrogram
    mel.window(200_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mel.n_frames > 240_000
    assert peak < 16 << 20


def test_no_room_for_the_spectrogram(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, played by a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    full = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115, PTH123  log_mel closes it
    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda **_: full)
    with pytest.raises(OutputError, match=r"No space left.*TMPDIR"):
        log_mel([_noise()], 80)
    assert full.closed


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_have_unit_area(n_mels: int) -> None:
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, 201)
    assert (filters >= 0).all()
    np.testing.assert_allclose(filters[-10:].sum(axis=1) * 40, 1, rtol=0.02)  # 40 Hz a bin


def test_filters_equal_the_reference_file() -> None:
    whisper: Any = pytest.importorskip("whisper")
    with np.load(Path(whisper.__file__).parent / "assets/mel_filters.npz") as reference:
        for n_mels in (80, 128):
            expected = reference[f"mel_{n_mels}"]
            np.testing.assert_allclose(mel_filters(n_mels), expected, rtol=0, atol=1e-8)
