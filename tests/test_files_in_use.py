"""Files that change under a running program: nothing wrong is believed, and none of it is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import tiny_model

from whisper_npu import TranscribeOptions, load_model, weights_cache
from whisper_npu.batch import Batch, workers
from whisper_npu.batch.recordings import Recording, find
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.errors import ModelError
from whisper_npu.events import WindowDone
from whisper_npu.kernels import native
from whisper_npu.options import BatchOptions, SubtitleOptions
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisper_npu.batch.report import Result
    from whisper_npu.transcript import Transcript

QUICK = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None, sample_len=5)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path, random_model: Callable[[str], Path]) -> Path:
    """A model of one's own, to be spoilt."""
    return shutil.copytree(random_model("micro.en"), tmp_path / "model")


def noise(seconds: float, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * 16000))).astype(np.float32)


def write_into(path: Path) -> None:
    """As `cp`, `dd` and `rsync --inplace` do it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"something else")


def packed(cache_folder: Path) -> Path:
    return next((cache_folder / "weights").glob("*.bin"))


@pytest.mark.parametrize("spoilt", ["cache", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("shorter", [False, True])
def test_what_was_heard_with_changed_files_is_not_given(
    model: Path, cache_folder: Path, spoilt: str, shorter: bool
) -> None:
    given: list[Any] = []
    with load_model(str(model), device="cpu") as opened:
        heard = iter(opened.open(noise(70), QUICK))
        given = [next(heard)]
        while not isinstance(given[-1], WindowDone):
            given.append(next(heard))
        path = packed(cache_folder) if spoilt == "cache" else model / spoilt
        if shorter:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
        else:
            write_into(path)
        with pytest.raises(ModelError, match=f"{path} was changed while it was in use"):
            next(heard)


def test_a_file_that_is_replaced_does_not_matter(model: Path, cache_folder: Path) -> None:
    with load_model(str(model), device="cpu") as opened:
        whole = opened.transcribe(noise(70), QUICK)
        for path in (packed(cache_folder), *model.iterdir()):
            (model / "new").write_bytes(b"something else")
            (model / "new").rename(path)
        assert opened.transcribe(noise(70), QUICK) == whole
        shutil.rmtree(model)
        shutil.rmtree(cache_folder)
        assert opened.transcribe(noise(70), QUICK) == whole


def test_a_model_that_is_replaced_while_it_is_opened(model: Path) -> None:
    before = Checkpoint(model)
    expected = before.fingerprint
    opened = Checkpoint(model)
    shutil.copy(model / "model.safetensors", model / "new")
    write_into(model / "new")
    (model / "new").rename(model / "model.safetensors")
    assert opened.fingerprint == expected
    assert Checkpoint(model).fingerprint != expected
    np.testing.assert_array_equal(
        opened.read("model.decoder.embed_tokens.weight"),
        before.read("model.decoder.embed_tokens.weight"),
    )


@pytest.mark.parametrize("kind", range(6))
def test_a_vocabulary_that_is_replaced_while_it_is_opened(tmp_path: Path, kind: int) -> None:
    path = tiny_model.write_all(tmp_path / "models")[kind]
    opened = Checkpoint(path)
    file = opened.vocabulary.file.path
    shutil.copy(file, tmp_path / "old")
    (tmp_path / "new").write_bytes(b"no vocabulary")
    (tmp_path / "new").rename(file)
    assert Tokenizer(opened).encode("ab") != []
    if path.is_dir():
        with pytest.raises(ModelError):
            Tokenizer(Checkpoint(path)).encode("ab")
    (tmp_path / "old").rename(file)
    assert Tokenizer(Checkpoint(path)).encode("ab") == Tokenizer(opened).encode("ab")


def test_nothing_is_kept_of_a_model_that_changes_while_it_is_converted(
    model: Path, cache_folder: Path
) -> None:
    checkpoint = Checkpoint(model)

    def build() -> Iterator[tuple[str, Any]]:
        yield "a", np.ones(9)
        write_into(model / "model.safetensors")
        yield "b", np.ones(9)

    with pytest.raises(ModelError, match="was changed while it was in use"):
        weights_cache.open_weights(checkpoint, "order", 1, build)
    assert [path.suffix for path in (cache_folder / "weights").iterdir()] == [".lock"]


class Meddler:
    """A listener that spoils a file when the first recording is done."""

    def __init__(self, spoil: Callable[[], None]) -> None:
        self.spoil = spoil

    def opened(self, device: object) -> None: ...

    def started(self, recording: Recording, seconds: float, done: float) -> None: ...

    def heard(self, recording: Recording, event: object) -> None: ...

    def finished(self, recording: Recording, result: Result, transcript: Transcript | None) -> None:
        self.spoil()


def run(model: Path, recordings: Path, out: Path, spoil: Callable[[], None]) -> None:
    opening = workers.Opening(str(model), "cpu", QUICK)
    describe = opening.describe(SubtitleOptions())
    listener = Meddler(spoil)
    options = BatchOptions(out, output_format=("json",))
    batch = Batch(find([recordings]), options, describe, opening.prepare, listener)
    workers.run(batch, opening.engine)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}


def test_a_batch_keeps_nothing_that_it_heard_with_a_changed_cache(
    model: Path, cache_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(6):
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise(50, i), 16000)
    run(model, tmp_path / "in", tmp_path / "expected", lambda: None)
    with pytest.raises(ModelError, match="was changed while it was in use"):
        run(model, tmp_path / "in", tmp_path / "out", lambda: write_into(packed(cache_folder)))
    expected, kept = texts(tmp_path / "expected"), texts(tmp_path / "out")
    assert 0 < len(kept) < 6
    assert {name: expected[name] for name in kept} == kept
    journal = (tmp_path / "out" / ".whisper-npu" / "journal.jsonl").read_text()
    lines = [record for record in map(json.loads, journal.splitlines()) if "recording" in record]
    assert {f"{line['recording']}.json" for line in lines} == set(kept)
    run(model, tmp_path / "in", tmp_path / "out", lambda: None)
    assert texts(tmp_path / "out") == expected


LOSING = """
import os, sys, whisper_npu.kernels
import numpy as np
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.weights_cache import open_weights
arrays = open_weights(Checkpoint(__import__("pathlib").Path(sys.argv[1])), "x", 1,
                      lambda: iter([("large", np.ones(1 << 20))]))
for file in os.scandir(os.environ["WHISPER_NPU_CACHE"] + "/weights"):
    os.truncate(file, 4096)
print(arrays["large"].sum())
"""


@pytest.mark.skipif(native is None, reason="no compiled kernels here")
def test_reading_what_was_cut_off_ends_with_the_name_of_the_file(
    model: Path, cache_folder: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSING, str(model)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (ModelError.exit_code, "")
    assert done.stderr.startswith(f"whisper-npu: {packed(cache_folder)} was cut short while")
    assert done.stderr.count("\n") == 1
