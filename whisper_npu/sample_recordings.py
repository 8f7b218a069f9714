"""Recordings that travel with the program: sentences by synthetic voices, to try a device on."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
_INSTALLED = _HERE / "samples"  # an installed copy has the folder inside the package
SAMPLES = _INSTALLED if _INSTALLED.is_dir() else _HERE.parent / "samples"
RECORDINGS = ("sentence.flac", "two_sentences.flac")  # in SAMPLES
