"""Recordings that are transcribed at the same time come out as they do alone, bit for bit."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_checkpoint import SIZES, write

from whisper_npu.batch.workers import Opening
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import AudioError
from whisper_npu.listening import hear
from whisper_npu.options import DeviceOptions, TranscribeOptions
from whisper_npu.transcribe import Model, Transcription
from whisper_npu.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("whisper_npu.kernels._native")  # installed without a compiler


@dataclass(frozen=True)
class Part:
    """A recording of noise, how it is transcribed, and what befalls it."""

    seconds: float
    seed: int
    options: TranscribeOptions
    arrives: float  # seconds after the others
    fails: bool


QUICK = TranscribeOptions(
    language="en", sample_len=8, temperature=(0.0, 0.4), best_of=3, logprob_threshold=-3.0
)
PARTS = st.builds(
    Part,
    seconds=st.sampled_from([0.3, 5.0, 29.0, 45.0]),
    seed=st.integers(0, 99),
    options=st.builds(
        lambda beams, words, prompt: replace(
            QUICK, beam_size=beams, word_timestamps=words, initial_prompt=prompt
        ),
        st.sampled_from([None, 2, 5]),
        st.booleans(),
        st.sampled_from([None, "some words"]),
    ),
    arrives=st.sampled_from([0.0, 0.01, 0.1]),
    fails=st.booleans(),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    checkpoint = Checkpoint(write(tmp_path_factory.mktemp("models") / "micro", SIZES["micro"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_NPU_CACHE", str(tmp_path_factory.mktemp("cache")))
        device = open_device(checkpoint, DeviceOptions("cpu", threads=2))
        with Model(checkpoint, device) as opened:
            yield opened


class Broken:
    """Features that cannot be read a second time."""

    def __init__(self, features: Any) -> None:
        self._features = features
        self._read = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._features, name)

    def window(self, *args: Any, **more: Any) -> Any:
        if self._read:
            raise AudioError("gone")
        self._read = True
        return self._features.window(*args, **more)


def _transcribe(model: Model, part: Part) -> list[Segment] | str:
    noise = np.random.default_rng(part.seed).standard_normal(round(part.seconds * 16000))
    features = hear([0.1 * noise.astype(np.float32)], model.checkpoint.dims.n_mels, part.options)
    if part.fails:
        features = Broken(features)  # type: ignore[assignment]
    try:
        found = Transcription(model, features, part.options)
        return [event for event in found if isinstance(event, Segment)]
    except AudioError as error:
        return str(error)


@given(parts=st.lists(PARTS, min_size=2, max_size=5))
@settings(max_examples=8, deadline=None)
def test_together_as_alone(model: Model, parts: list[Part]) -> None:
    def arrive(part: Part) -> list[Segment] | str:
        time.sleep(part.arrives)
        return _transcribe(model, part)

    alone = [_transcribe(model, part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        assert list(pool.map(arrive, parts)) == alone


@pytest.mark.timeout(60)
def test_a_recording_that_is_given_up_holds_nobody_up(model: Model) -> None:
    part = Part(45.0, 1, replace(QUICK, beam_size=2), 0.0, fails=False)
    alone = _transcribe(model, part)

    def give_up() -> None:
        noise = np.zeros(45 * 16000, np.float32)
        features = hear([noise], model.checkpoint.dims.n_mels, QUICK)
        next(iter(Transcription(model, features, QUICK)))  # one segment, and never another

    threads = [threading.Thread(target=give_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert _transcribe(model, part) == alone
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("least", "lengths"), [(-1e9, [756]), (0.0, [756, 3000])])
def test_a_short_window_that_fails_is_heard_once_more(
    model: Model, monkeypatch: pytest.MonkeyPatch, least: float, lengths: list[int]
) -> None:
    device, encode = model.device, model.device.encode
    heard: list[int] = []

    def noting(mel: Any) -> Any:
        heard.append(mel.shape[1])
        return encode(mel)

    monkeypatch.setattr(device, "encode", noting)
    monkeypatch.setattr(device, "info", replace(device.info, short_windows=True))
    options = replace(
        QUICK, logprob_threshold=least, compression_ratio_threshold=None, no_speech_threshold=None
    )
    _transcribe(model, Part(5.0, 1, options, 0.0, fails=False))
    assert heard[:2] == lengths


def test_how_many_depends_on_the_memory(
    random_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Opening(str(random_model("micro")), "cpu", TranscribeOptions(beam_size=5))
    sizes = []
    for free in (1 << 40, 32 << 20, 0):
        monkeypatch.setattr(
            "whisper_npu.machine.Machine.memory", lambda _, free=free: (free, 1 << 40)
        )
        sizes.append(opening.batch_size)
    assert sizes[0] == 8
    assert 1 < sizes[1] < 8
    assert sizes[2] == 1
