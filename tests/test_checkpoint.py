"""Model folders, whole and damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from random_checkpoint import SIZES, random_tensors, write
from safetensors.numpy import load_file, save_file

from whisper_npu.checkpoint import Checkpoint, alignment, consistency
from whisper_npu.errors import ModelError
from whisper_npu.model import Whisper
from whisper_npu.tokenizer import Tokenizer
from whisper_npu.transcribe import Model

if TYPE_CHECKING:
    from collections.abc import Callable


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


def change(path: Path, **values: object) -> None:
    """Other values in a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def test_alignment_heads_out_of_range_are_refused(folder: Path) -> None:
    change(folder / "generation_config.json", alignment_heads=[[9, 0]])
    with pytest.raises(ModelError, match=r"generation_config\.json: alignment_heads"):
        Checkpoint(folder)


def test_a_distilled_model_may_name_the_heads_of_its_teacher(tmp_path: Path) -> None:
    dims = replace(SIZES["micro"], n_audio_layer=3, n_text_layer=1)
    folder = write(tmp_path / "distilled", dims)
    change(folder / "generation_config.json", alignment_heads=[[0, 1], [2, 1]])
    assert Checkpoint(folder).alignment_heads == ((0, 0), (0, 1))
    change(folder / "generation_config.json", alignment_heads=[[3, 1]])
    with pytest.raises(ModelError, match="alignment_heads"):
        Checkpoint(folder)


def test_a_tokenizer_of_another_model_is_named(
    folder: Path, random_model: Callable[[str], Path]
) -> None:
    shutil.copy(random_model("micro.en") / "tokenizer.json", folder)
    with pytest.raises(ModelError, match=r"tokenizer\.json has 51864 tokens and the model 51865"):
        Tokenizer(Checkpoint(folder))


def test_a_tokenizer_that_does_not_name_timestamps_is_as_good(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    end = next(i for i, t in enumerate(content["added_tokens"]) if t["content"] == "<|0.00|>")
    del content["added_tokens"][end:]
    path.write_text(json.dumps(content))
    tokenizer = Tokenizer(Checkpoint(folder))
    assert tokenizer.timestamp_begin == tokenizer.no_timestamps + 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"is_multilingual": False}, "English-only; one with 51865 tokens is not"),
        ({"suppress_tokens": [1, 51999]}, "names token 51999, and the model has 51865"),
        ({"lang_to_id": {"<|en|>": 50258}}, r"<\|en\|> as token 50259, the configuration as 50258"),
        ({"no_timestamps_token_id": 50364}, "belong to different models"),
        ({"alignment_heads": [[0, "x"]]}, "not pairs of layer and head"),
    ],
)
def test_a_generation_config_of_another_model_is_named(
    folder: Path, values: dict[str, object], told: str
) -> None:
    change(folder / "generation_config.json", **values)
    with pytest.raises(ModelError, match=told):
        Tokenizer(Checkpoint(folder))


def test_the_heads_of_another_published_model_are_named() -> None:
    heads = alignment.published(SIZES["tiny"])
    assert heads
    assert alignment.foreign(heads, SIZES["base"]) == "tiny"
    assert alignment.foreign(heads, SIZES["tiny"]) is None
    assert alignment.foreign(heads, replace(SIZES["tiny"], n_vocab=51999)) is None


@pytest.mark.parametrize(
    ("key", "told"),
    [("encoder_layers", "no layer uses, model.encoder.layers.1"),
     ("decoder_layers", "no layer uses, model.decoder.layers.1.encoder_attn")],
)  # fmt: skip
def test_layers_that_are_stored_and_not_used_are_named(folder: Path, key: str, told: str) -> None:
    change(folder / "config.json", **{key: 1})
    with pytest.raises(ModelError, match=told):
        Checkpoint(folder)
    change(folder / "config.json", **{key: 3})
    with pytest.raises(ModelError, match=r"have no tensor model.*layers\.2"):
        Checkpoint(folder)


def test_the_output_projection_may_be_stored_once_more(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    Checkpoint(folder)
    tensors["base_model.lora_A"] = np.zeros((2, 2), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"no layer uses, base_model\.lora_A;"):
        Checkpoint(folder)


def test_published_widths_have_heads_of_64() -> None:
    contents = SimpleNamespace(dims=replace(SIZES["base"], n_text_head=4))
    with pytest.raises(ModelError, match=r"decoder is said to have 4 attention heads.* has 8"):
        consistency._check_heads(cast("Any", contents), Path("base"))
    consistency._check_heads(cast("Any", SimpleNamespace(dims=SIZES["large-v3-turbo"])), Path("x"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float, dtype: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.decoder.embed_tokens.weight"
    tensors[name] = tensors[name].astype(dtype)
    tensors[name][-1, -1] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"tensor {name} has infinite values or NaN"):
        Checkpoint(folder).read(name)
    largest = np.finfo(dtype).max
    tensors[name][-1, -1] = largest
    save_file(tensors, folder / "model.safetensors")
    assert Checkpoint(folder).read(name)[-1, -1] == largest


def test_windows_of_another_length_are_refused(random_model: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"hears windows of 2 s"):
        Model(Checkpoint(random_model("short")), cast("Any", None))


def test_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Checkpoint(folder).name == "micro"
    monkeypatch.chdir(folder)
    assert Checkpoint(Path()).name == "micro"
    snapshot = tmp_path / "models--owner--some--name" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    assert Checkpoint(snapshot).name == "owner/some--name"
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    known = {sha256: SimpleNamespace(name="published")}
    monkeypatch.setattr("whisper_npu.checkpoint.of_weights", known.get)
    assert Checkpoint(snapshot).name == "published"


def test_a_packaged_model_has_its_name(tiny_en: Path) -> None:
    assert Checkpoint(tiny_en).name == "tiny.en"
