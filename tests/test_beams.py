"""Five beams by default on the command line, greedy search in the library, as openai/whisper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from whisper_npu import TranscribeOptions, load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import CommandLine

QUICK = TranscribeOptions(temperature_increment_on_fallback=None, sample_len=12)
FLAGS = ["--temperature-increment-on-fallback", "none", "--sample-len", "12", "--device", "cpu"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    # a full window: text that a random model begins behind the end would be left out
    soundfile.write(path, 0.1 * np.random.default_rng(2).standard_normal(16000 * 30), 16000)
    return path


@pytest.fixture
def texts(
    command_line: CommandLine, random_model: Callable[[str], Path], recording: Path
) -> Callable[..., list[str]]:
    """What the command says, and what the library says, with the same beams."""

    def run(*flags: str, **options: object) -> list[str]:
        folder = random_model("micro.en")
        done = command_line("transcribe", recording, "-m", folder, *FLAGS, *flags)
        assert done.code == 0, done.err
        with load_model(folder, device="cpu") as model:
            heard = model.transcribe(recording, replace(QUICK, **options))  # type: ignore[arg-type]
        return ["".join(done.out.split()), "".join(heard.text.split())]

    return run


def test_the_command_has_five_beams_and_the_library_none(texts: Callable[..., list[str]]) -> None:
    default, greedy = texts()
    assert default != greedy
    assert texts(beam_size=5) == [default, default]
    assert texts("--beam-size", "1") == [greedy, greedy]
    assert texts("--beam-size", "1", beam_size=1) == [greedy, greedy]


def test_beams_do_not_matter_above_temperature_0(texts: Callable[..., list[str]]) -> None:
    command, library = texts("--temperature", "0.7", temperature=(0.7,))
    assert command == library
    assert texts("--temperature", "0.7", "--beam-size", "1")[0] == command
    both = texts("--temperature", "0,0.7", "--logprob-threshold", "100")
    assert both[0] == command  # the window fails with beams, and samples are drawn
