"""The same model in every format: the same tensors, the same tokens, the same text."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import foreign_models
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from random_checkpoint import SIZES
from random_checkpoint import write as write_random
from real_models import real_model

from whisper_npu.checkpoint import Checkpoint, format_of, ggml, layout
from whisper_npu.errors import ModelError
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import CommandLine

SMALL = replace(SIZES["micro"], n_audio_ctx=100, n_audio_layer=1, n_text_layer=2)
KINDS = (*foreign_models.CTRANSLATE2, *foreign_models.GGML)
EXACT = {  # kind of weights -> what a tensor becomes in it
    "float32": lambda x: x,
    "f32": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "f16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: (x.view(np.uint32) & 0xFFFF0000).view(np.float32),
}
COARSE = {  # of the rest: largest error of a matrix, relative (2-norm)
    "int8": 0.01,
    "int8_float16": 0.01,
    "int16": 0.004,
    "q8_0": 0.01,
    "q5_0": 0.05,
    "q5_1": 0.05,
    "q4_0": 0.1,
    "q4_1": 0.1,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("original") / "model", SMALL)


@pytest.fixture(scope="module")
def converted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind of weights -> the model in that format."""
    place = tmp_path_factory.mktemp("converted")
    return lru_cache(lambda kind: foreign_models.write(original, place, kind))


@pytest.mark.parametrize("kind", EXACT)
def test_the_bits_are_those_of_the_original(
    kind: str, original: Path, converted: Callable[[str], Path]
) -> None:
    ours, theirs = Checkpoint(original), Checkpoint(converted(kind))
    assert theirs.dims == ours.dims
    for name in ours.names:
        expected, value = ours.read(name), theirs.read(name)
        if kind == "f16" and value.dtype == np.float32:  # biases, norms and positions stay exact
            assert value.ndim == 1 or "positions" in name
        else:
            expected = EXACT[kind](expected)
        assert value.dtype == expected.dtype, name
        np.testing.assert_array_equal(value, expected, name)


@pytest.mark.parametrize("kind", COARSE)
def test_weights_of_fewer_bits_are_close(
    kind: str, original: Path, converted: Callable[[str], Path]
) -> None:
    ours, theirs = Checkpoint(original), Checkpoint(converted(kind))
    for name, shape in layout.shapes(ours.dims).items():
        if name in ours:
            expected, value = ours.read(name), theirs.tensor(name, shape).astype(np.float32)
            error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
            assert error < COARSE[kind], name


def dequantised(kind: str, block: bytes) -> list[float]:
    """One block of ggml's, value by value, as ggml-common.h describes it."""
    half = struct.Struct("<e")
    (scale,) = half.unpack_from(block)
    if kind == "q8_0":
        return [scale * value for value in struct.unpack("<32b", block[2:])]
    rest = block[2:]
    least = 0.0
    if kind.endswith("_1"):
        (least,) = half.unpack_from(rest)
        rest = rest[2:]
    fifth = 0
    if kind.startswith("q5"):
        fifth = int.from_bytes(rest[:4], "little")
        rest = rest[4:]
    found = []
    for i in range(32):
        value = rest[i % 16] >> 4 if i >= 16 else rest[i % 16] & 15
        value += 16 * (fifth >> i & 1)
        middle = {"q4_0": 8, "q5_0": 16}.get(kind, 0)
        found.append((value - middle) * scale + least)
    return found


BLOCKS = {"q4_0": (2, 18), "q4_1": (3, 20), "q5_0": (6, 22), "q5_1": (7, 24), "q8_0": (8, 34)}


@pytest.mark.parametrize("kind", BLOCKS)
@given(data=st.data())
def test_any_block_reads_as_the_format_is_defined(kind: str, data: st.DataObject) -> None:
    number, size = BLOCKS[kind]
    block = data.draw(st.binary(min_size=size, max_size=size))
    n_values, dtype, floats = ggml._KINDS[number]
    assert (n_values, np.dtype(dtype).itemsize) == (32, size)
    with np.errstate(over="ignore", invalid="ignore"):
        found = floats(np.frombuffer(block, dtype))
    np.testing.assert_allclose(found[0], dequantised(kind, block), rtol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "f16", "q5_1"])
def test_facts_are_the_same(kind: str, original: Path, converted: Callable[[str], Path]) -> None:
    ours, theirs = Checkpoint(original), Checkpoint(converted(kind))
    assert theirs.format == ("ctranslate2" if kind == "float16" else "ggml")
    assert theirs.alignment_heads == ours.alignment_heads
    assert theirs.is_multilingual == ours.is_multilingual
    assert theirs.fingerprint != ours.fingerprint
    for path in (original, converted(kind)):
        assert format_of(path) == Checkpoint(path).format


def vocabularies(original: Path, converted: Callable[[str], Path], tmp: Path) -> dict[str, Path]:
    """Places that hold one vocabulary in each way that there is."""
    tokens = json.loads((original / "tokenizer.json").read_text())
    names = tokens["model"]["vocab"] | {t["content"]: t["id"] for t in tokens["added_tokens"]}
    listed = sorted(names, key=names.__getitem__)
    content = {"vocabulary.json": json.dumps(listed), "vocabulary.txt": "\n".join(listed) + "\n"}
    found = {"ggml": converted("f16")}
    for name, text in content.items():
        found[name] = shutil.copytree(converted("float16"), tmp / name)
        (found[name] / "tokenizer.json").unlink()
        (found[name] / name).write_text(text, encoding="utf-8")
    incomplete = found["a lost merge"] = shutil.copytree(original, tmp / "incomplete")
    del tokens["model"]["merges"][0]
    (incomplete / "tokenizer.json").write_text(json.dumps(tokens))
    return found


@pytest.fixture(scope="module")
def tokenizers(
    original: Path, converted: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tokenizer]:
    """The vocabulary of each format, and the original."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_NPU_CACHE", str(tmp_path_factory.mktemp("cache")))
        places = vocabularies(original, converted, tmp_path_factory.mktemp("vocabularies"))
        places["original"] = original
        return {name: Tokenizer(Checkpoint(place)) for name, place in places.items()}


def test_every_vocabulary_has_the_same_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    tables = [{**tokenizer._table, "file": ""} for tokenizer in tokenizers.values()]
    assert all(table == tables[0] for table in tables[1:])


SENTENCES = (
    " the quick t tx  brown's Fox, it'll 1234567 times   ",
    "Größe, Straße — éàü ñandú; Всё люди\n\nжили",
    "日本語のテスト。中文測試 한국어 ไทย हिन्दी العربية ♪♪ 🎉🇩🇪",
    "aaaaaaaaaaaaaaa      \t\t\n\n\n--------- ((()))",
)


@given(text=st.text() | st.lists(st.sampled_from(SENTENCES)).map("".join))
@settings(max_examples=100)
def test_text_is_cut_as_the_original_cuts_it(text: str, tokenizers: dict[str, Tokenizer]) -> None:
    expected = tokenizers["original"].encode(text)
    for name, tokenizer in tokenizers.items():
        assert tokenizer.encode(text) == expected, name


@pytest.mark.parametrize("kind", ["float16", "f16"])
def test_a_command_says_the_same_with_every_format(
    kind: str, command_line: CommandLine, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    fixed = "--device cpu --precision f16 --temperature 0 -l en -f json".split()
    said = []
    original = write_random(tmp_path / "original", SIZES["micro"], half=True)
    for model in (original, foreign_models.write(original, tmp_path, kind)):
        result = command_line("transcribe", str(tmp_path / "noise.wav"), "-m", str(model), *fixed)
        assert result.code == 0, result.err
        said.append([segment["tokens"] for segment in json.loads(result.out)["segments"]])
    assert said[0] == said[1] != []


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_real_weights_have_the_facts_of_the_published_model(name: str) -> None:
    """What CTranslate2's converter wrote, held against OpenAI's own table."""
    from whisper_npu.checkpoint import alignment

    checkpoint = Checkpoint(real_model(name))
    dims = checkpoint.dims
    assert (dims.n_audio_state, dims.n_text_layer) == {"tiny.en": (384, 4), "base": (512, 6)}[name]
    assert checkpoint.is_multilingual == (name == "base")
    assert checkpoint.alignment_heads == alignment.published(dims)
    assert all(checkpoint.read(name).dtype == np.float16 for name in checkpoint.names)
    tokenizer = Tokenizer(checkpoint)
    assert tokenizer.encode(" the") == [264 if name == "base" else 262]


def test_real_weights_through_ggml_are_the_same(tmp_path: Path) -> None:
    ours = Checkpoint(real_model("tiny.en"))
    theirs = Checkpoint(foreign_models.write(real_model("tiny.en"), tmp_path, "f16"))
    assert theirs.alignment_heads == ours.alignment_heads
    for name in layout.shapes(ours.dims):
        if name in theirs:
            np.testing.assert_array_equal(theirs.read(name), ours.read(name), name)


def test_real_speech_comes_out_the_same(
    shared: Path, command_line: CommandLine, tmp_path: Path
) -> None:
    """In float32, and what is said is English."""
    real = real_model("tiny.en")
    models = [
        real,
        foreign_models.write(real, tmp_path, "f16"),
        foreign_models.write_huggingface(real, tmp_path / "huggingface"),
    ]
    speech = shared / "data" / "real_speech"
    recordings = [str(speech / f"cv-en-{number}.flac") for number in (22058266, 22058267)]
    fixed = "--device cpu --precision f32 --word-timestamps -f json".split()
    said = []
    for model in models:
        folder = tmp_path / f"said by {model.name}"
        result = command_line("transcribe", *recordings, "-m", model, "-o", folder, *fixed)
        assert result.code == 0, result.err
        said.append([json.loads(path.read_text())["segments"] for path in folder.glob("*.json")])
    assert said[0] == said[1] == said[2]
    assert all(segments[0]["words"] for segments in said[0])


def test_what_no_format_is(
    tmp_path: Path, original: Path, converted: Callable[[str], Path]
) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "base.pt": (b"PK\x03\x04 archive/data.pkl", "pickled checkpoint.*ggml"),
        "old.pt": (b"\x80\x02}q", "pickled checkpoint"),
        "model.gguf": (b"GGUF\x03", "llama.cpp"),
        "notes.bin": (b"hello", "not a Whisper model"),
        "empty.bin": (b"", "not a Whisper model"),
    }
    for name, (content, told) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=told):
            Checkpoint(tmp_path / name)
    for part in (original / "model.safetensors", converted("float16") / "model.bin"):
        with pytest.raises(ModelError, match=f"use the folder {part.parent}"):
            Checkpoint(part)
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "config.json").write_text("{}")
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelError, match="only pickled weights"):
        Checkpoint(tmp_path / "pickles")
