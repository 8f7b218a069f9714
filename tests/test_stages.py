"""Stages: the sum is what passed, and an inner stage is not counted twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from whisper_npu import load_model, stages
from whisper_npu.options import TranscribeOptions
from whisper_npu.stages import STAGES, recording, stage, staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that only moves when told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_inner_stages_are_taken_off_the_outer(wait: Callable[[float], None]) -> None:
    with recording() as found:
        wait(1)
        with stage("encoder"):
            wait(2)
            with stage("K/V"):
                wait(4)
            wait(8)
        wait(16)
    wait(32)
    assert found.seconds == {
        "audio": 0, "features": 0, "encoder": 10, "K/V": 4, "decoder": 0, "word times": 0,
        "other": 17,
    }  # fmt: skip
    assert found.total == 31


def test_making_items_counts_and_using_them_does_not(wait: Callable[[float], None]) -> None:
    def blocks() -> Iterator[int]:
        for i in range(3):
            wait(1)
            yield i

    with recording() as found, stage("features"):
        for i in staged("audio", blocks()):
            wait(10 * i)
    assert found.seconds["audio"] == 3
    assert found.seconds["features"] == 30


def test_an_error_ends_its_stage(wait: Callable[[float], None]) -> None:
    def fail() -> None:
        with stage("decoder"):
            wait(1)
            raise ValueError("dead")

    with recording() as found:
        with pytest.raises(ValueError, match="dead"):
            fail()
        wait(2)
    assert found.seconds["decoder"] == 1
    assert found.seconds["other"] == 2


def test_nobody_records_by_default() -> None:
    with stage("encoder"):
        pass
    assert stages._recording.get() is None


def test_a_transcription_tells_all_its_stages(random_model: Callable[[str], Path]) -> None:
    samples = np.zeros(16000, np.float32)
    options = TranscribeOptions(
        temperature=(0.0,), temperature_increment_on_fallback=None, sample_len=3, language="en"
    )
    with recording() as found, load_model(random_model("micro"), device="cpu") as model:
        model.transcribe(samples, options)
    silent = [name for name, seconds in found.seconds.items() if seconds == 0]
    assert silent == ["word times"]
    assert set(found.seconds) == set(STAGES)
