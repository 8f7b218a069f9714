"""Model folders, whole and damaged."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from random_checkpoint import SIZES, random_tensors, write
from safetensors.numpy import save_file

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.errors import ModelError
from whisper_npu.model import Whisper
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(random_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(random_model("micro"), tmp_path / "micro")


def test_dimensions(random_model: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint(random_model("micro"))
    assert checkpoint.dims == SIZES["micro"]
    assert checkpoint.is_multilingual
    assert not Checkpoint(random_model("micro.en")).is_multilingual


def test_half_precision_and_shards_read_the_same(tmp_path: Path, folder: Path) -> None:
    half = Checkpoint(write(tmp_path / "half", SIZES["micro"], half=True))
    name = "model.decoder.layers.1.fc1.weight"
    whole = Checkpoint(folder).read(name)
    assert half.read(name).dtype == np.float16
    np.testing.assert_allclose(half.read(name), whole, rtol=1e-3, atol=1e-4)

    tensors = random_tensors(SIZES["micro"], 0)
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for part in set(names.values()):
        save_file({n: t for n, t in tensors.items() if names[n] == part}, folder / part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    np.testing.assert_array_equal(Checkpoint(folder).read(name), whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        Checkpoint(folder)


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise", "folder"])
def test_a_damaged_part_is_named(folder: Path, part: str, damage: str) -> None:
    path = folder / part
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-40], "noise": b"\xff\x00" * 99}[damage])
    with pytest.raises(ModelError, match=part):
        Tokenizer(Checkpoint(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("d_model", 0), ("d_model", "x"), ("vocab_size", None), ("decoder_layers", 10**9),
     ("encoder_attention_heads", 7)],
)  # fmt: skip
def test_an_impossible_size_is_named(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json"):
        Checkpoint(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"d_model": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"conv1\.weight has shape \(64, 80, 3\)"):
        _ = Whisper(Checkpoint(folder)).conv1.weight


def test_alignment_heads_out_of_range_are_refused(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"alignment_heads": [[9, 0]]}')
    with pytest.raises(ModelError, match="alignment_heads"):
        _ = Checkpoint(folder).alignment_heads
