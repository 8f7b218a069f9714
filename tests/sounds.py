"""Sounds without speech that need no file: noise, tones, music of a kind, silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Sound = NDArray[Any]


def _noise(rng: np.random.Generator, n: int, fall: float) -> Sound:
    """Noise whose amplitude falls with frequency: 0 white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** fall
    noise = np.fft.irfft(spectrum, n)
    return 0.1 * noise / noise.std()


def _notes(t: Sound, hertz: NDArray[np.float64], beat: float) -> Sound:
    """One note after another, each struck and fading, with three overtones."""
    at = t % beat
    pitch = hertz[(t // beat).astype(int) % len(hertz)]
    tones = sum(np.sin(2 * np.pi * pitch * k * at) / k for k in (1, 2, 3, 4))
    return 0.1 * tones * np.exp(-3 * at / beat)


def _bursts(rng: np.random.Generator, t: Sound) -> Sound:
    """Bursts of noise with pauses, and tones."""
    loud = np.sin(2 * np.pi * t * rng.uniform(0.2, 0.8)) > rng.uniform(-0.5, 0.5)
    tone = np.sin(2 * np.pi * t * rng.uniform(100, 900))
    return loud * (0.1 * tone + 0.05 * rng.standard_normal(len(t)))


def made(name: str) -> Sound:
    """(S,) float32: a sound by its name, KIND-SECONDS."""
    kind, seconds = name.split("-")
    rng = np.random.default_rng(sum(map(ord, kind)))
    n = round(16000 * float(seconds))
    t = np.arange(n) / 16000
    scale = 220 * 2 ** (np.array([0, 4, 7, 12, 9, 5, 7, 2]) / 12)
    kinds: dict[str, Callable[[], Any]] = {
        "silence": lambda: np.zeros(n),
        "white": lambda: _noise(rng, n, 0),
        "pink": lambda: _noise(rng, n, 0.5),
        "brown": lambda: _noise(rng, n, 1),
        "hum": lambda: sum(0.1 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 8)),
        "chord": lambda: sum(0.1 * np.sin(2 * np.pi * hertz * t) for hertz in scale[:3]),
        "tune": lambda: _notes(t, scale, 0.4),
        "band": lambda: (
            _notes(t, scale, 0.3) + _notes(t, scale[:3] / 2, 0.6) + 0.1 * _bursts(rng, t)
        ),
        "bursts": lambda: _bursts(rng, t),
    }
    return np.asarray(kinds[kind](), np.float32)
