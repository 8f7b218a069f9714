"""Models made for the tests, once per run."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from browser import browser, reader
from command_line import CommandLine, runner
from manners import MANNERS, behaving
from random_checkpoint import SIZES, write
from real_models import real_model

from whisper_npu.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whisper_npu.checkpoint import Dimensions

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background job
hypothesis.settings.register_profile("patient", deadline=None)  # machines are busy
hypothesis.settings.load_profile("patient")
os.environ["WHISPER_NPU_SKIP_SILENCE"] = "false"  # random weights transcribe noise and tones

__all__ = ["browser", "reader"]  # fixtures: one Chromium for all tests

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
CASES: dict[str, Dimensions] = SIZES | {
    "tiny.en": replace(SIZES["tiny"], n_vocab=51864),
    "short": replace(SIZES["micro"], n_audio_ctx=100),  # windows of 2 s
    "micro.en": replace(SIZES["micro"], n_vocab=51864),
    "v3": replace(SIZES["micro"], n_mels=128, n_vocab=51866, n_text_layer=1),
}


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name -> the folder of a model of that size with random weights, made on first use."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = write(tmp_path_factory.mktemp("models") / name, CASES[name])
        return made[name]

    return get


@pytest.fixture
def checkpoint(
    random_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Checkpoint:
    """A small model for windows of 2 s, with a cache of its own."""
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    return Checkpoint(random_model("short"))


@pytest.fixture
def model(
    random_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A small model for whole windows, with a configuration and a cache of its own."""
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return str(random_model("micro.en"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings beside the project; tests that need them skip where they are missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the recordings in ../shared/data are not here")
    return SHARED


@pytest.fixture(scope="session")
def tiny_en() -> Path:
    """Real weights: OpenAI's tiny.en, which comes with the extra dev."""
    return real_model("tiny.en")


@pytest.fixture(scope="module")
def all_on_npu() -> Iterator[None]:
    """Plans put every layer on the NPU, however small."""
    from whisper_npu.devices.plan import Step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "on_npu", property(lambda _: True))
        yield


@pytest.fixture(params=MANNERS)
def manners(request: pytest.FixtureRequest, random_model: Callable[[str], Path]) -> Iterator[str]:
    """The emulated NPU in each of its manners; little memory is little for the model "short"."""
    with behaving(request.param, random_model("short")):
        yield request.param


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    """`whisper-npu` with a configuration and a cache of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return runner(monkeypatch, capsys)
