"""Broken files of every format end in samples or in an AudioError, never in anything else.

scripts/fuzz_audio.py does the same at length, in processes with limits.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from broken_recordings import FORMATS, KINDS, VALUES, Edit, broken, recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whisper_npu.audio import open_audio
from whisper_npu.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = st.one_of(st.sampled_from(VALUES), st.integers(0, 2**32 - 1))
EDITS = st.lists(
    st.builds(Edit, st.sampled_from(KINDS), st.floats(0, 1), NUMBERS), min_size=1, max_size=6
)


@pytest.fixture(autouse=True)
def _libsndfile_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without ffmpeg, which is another program's business and slow to start."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        patch.setitem(sys.modules, "av", None)
        yield


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=40,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS)
def test_broken_recordings(name: str, edits: list[Edit]) -> None:
    data = broken(recording(name), edits)
    n_samples = 0
    refusal = ""
    try:
        with open_audio(io.BytesIO(data)) as audio:
            for block in audio.blocks:
                assert np.isfinite(block).all()
                assert np.abs(block).max(initial=0) <= 1
                n_samples += len(block)
    except AudioError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert n_samples < 2e7  # from a file of a few kilobytes


@pytest.mark.parametrize("name", FORMATS)
def test_sound_ones_are_read(name: str) -> None:
    with open_audio(io.BytesIO(recording(name))) as audio:
        assert 8000 <= sum(map(len, audio.blocks)) < 9000
    assert not audio.warnings
