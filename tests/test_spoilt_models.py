"""A spoilt model folder opens or is refused; scripts/fuzz_models.py tries many more."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import foreign_models
import pytest
from tiny_model import open_everything, spoil, write, write_all

from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_models_open(tmp_path: Path) -> None:
    for path in write_all(tmp_path):
        open_everything(path)


@pytest.mark.parametrize("kind", ["float16", "int8", "f16", "q5_1"])
def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = foreign_models.write(write(tmp_path / "original"), tmp_path, kind)
    weights = path / "model.bin" if path.is_dir() else path
    content = weights.read_bytes()
    ends = [*range(0, 300, 7), *range(300, len(content), len(content) // 150), len(content) - 1]
    for end in ends:
        weights.unlink()
        weights.write_bytes(content[:end])
        with pytest.raises(ModelError):
            open_everything(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        open_everything(folder)


def test_spoilt_files(tmp_path: Path) -> None:
    models = write_all(tmp_path)
    pristine = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    refusals = []
    for seed in range(600):
        rng = random.Random(seed)
        model = rng.choice(models)
        path = rng.choice([file for file in pristine if file == model or model in file.parents])
        path.unlink()  # never written over while it is mapped
        path.write_bytes(spoil(pristine[path], path.name, rng))
        try:
            open_everything(model)
        except ModelError as error:
            refusals.append(str(error))
        path.unlink()
        path.write_bytes(pristine[path])
    assert len(refusals) > 200
    assert not [message for message in refusals if "\n" in message]


@pytest.mark.timeout(30)  # a list of all ids that there might be takes minutes, and the memory
@pytest.mark.parametrize("name", ["a", "<|endoftext|>"])
def test_a_token_with_an_id_beyond_all_bounds(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, added = content["model"]["vocab"], content["added_tokens"]
    vocabulary[name] = 2**31
    content["added_tokens"] = [token for token in added if token["content"] != name]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="2147483649 tokens and the model"):
        open_everything(folder)
