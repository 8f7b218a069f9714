"""A spoilt model folder opens or is refused; scripts/fuzz_models.py tries many more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from tiny_model import open_everything, spoil, write

from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_opens(tmp_path: Path) -> None:
    open_everything(write(tmp_path / "model"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        open_everything(folder)


def test_spoilt_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    pristine = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    refusals = []
    for seed in range(600):
        rng = random.Random(seed)
        path = rng.choice(list(pristine))
        path.write_bytes(spoil(pristine[path], path.name, rng))
        try:
            open_everything(folder)
        except ModelError as error:
            refusals.append(str(error))
        path.write_bytes(pristine[path])
    assert len(refusals) > 200
    assert not [message for message in refusals if "\n" in message]
