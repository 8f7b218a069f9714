"""A model that cannot translate says so, before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from whisper_npu import catalogue, load_model
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.errors import OptionError
from whisper_npu.options import TranscribeOptions
from whisper_npu.translation import require_translation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import CommandLine

TRANSLATE = TranscribeOptions(task="translate")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))


def test_a_model_of_english(random_model: Callable[[str], Path], command_line: CommandLine) -> None:
    model = random_model("micro.en")
    result = command_line("transcribe", "nothing.wav", "-m", model, "--task", "translate")
    assert (result.code, result.out) == (2, "")
    assert "knows only English and cannot translate" in result.err
    with load_model(model, device="cpu") as opened, pytest.raises(OptionError, match="cannot"):
        opened.open(np.zeros(16000, np.float32), TRANSLATE)


def test_a_model_that_was_not_taught_it_is_known_by_its_weights(
    random_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(random_model("micro"))
    require_translation(checkpoint)  # nobody knows this model
    turbo = catalogue.known()["large-v3-turbo"]
    sums = {repository.sha256 for repository in turbo.repositories}
    monkeypatch.setattr("whisper_npu.cache.digest", lambda _file: sums.pop())
    again = Checkpoint(checkpoint.path)
    with pytest.raises(OptionError, match="large-v3-turbo was not trained to translate: medium"):
        require_translation(again)
