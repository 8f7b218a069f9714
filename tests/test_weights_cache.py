"""Weights on disk: made once, mapped, checked, made again when damaged, never in the way."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whisper_npu.weights_cache import PAGE, key, open_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.held import HeldFile

K = key("k", "x", 1)
ARRAYS = {
    "small": np.arange(7, dtype=np.float32),
    "large": np.arange(30_000, dtype=np.int8).reshape(100, 300),
    "empty": np.zeros((0,), np.int32),
    "half": np.ones((3, 4, 5), np.float16),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    return tmp_path / "weights"


class Model:
    """What `open_weights` asks of a checkpoint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.held: list[HeldFile] = []

    def hold(self, file: HeldFile) -> None:
        self.held.append(file)

    def require_unchanged(self) -> None: ...


def opened(name: str, build: Callable[[], Iterable[tuple[str, Any]]]) -> dict[str, Any]:
    """The arrays of a model of that name."""
    return open_weights(cast("Checkpoint", Model(name)), "x", 1, build)


def build() -> Iterator[tuple[str, Any]]:
    yield from ARRAYS.items()


def never() -> Iterator[tuple[str, Any]]:
    yield pytest.fail("converted although it was cached"), None


def assert_same(arrays: dict[str, Any], expected: dict[str, Any] = ARRAYS) -> None:
    assert list(arrays) == list(expected)
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_the_second_start_converts_nothing() -> None:
    assert_same(opened("k", build))
    arrays = opened("k", never)
    assert_same(arrays)
    assert not arrays["large"].flags.writeable
    assert arrays["large"].ctypes.data % PAGE == 0
    assert arrays["half"].ctypes.data % 64 == 0


@given(st.dictionaries(st.text(min_size=1), hnp.arrays(np.uint8, hnp.array_shapes(min_side=0))))
@settings(max_examples=20, deadline=None)
def test_what_goes_in_comes_out(arrays: dict[str, Any]) -> None:
    name = str(time.monotonic_ns())
    for _ in range(2):
        assert_same(opened(name, lambda: iter(arrays.items())), arrays)


def test_another_version_or_order_is_another_key() -> None:
    keys = {key(f, o, v) for f in ("a" * 64, "b" * 64) for o in ("cpu", "npu") for v in (1, 2)}
    assert len(keys) == 8


@pytest.mark.parametrize("place", [0, 5000, 34_000])
def test_a_damaged_file_is_made_again(folder: Path, place: int) -> None:
    opened("k", build)
    path = folder / f"{K}.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    assert_same(opened("k", build))
    assert_same(opened("k", never))


def test_a_short_file_is_made_again(folder: Path) -> None:
    opened("k", build)
    with (folder / f"{K}.bin").open("r+b") as file:
        file.truncate(4096)
    assert_same(opened("k", build))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"file": 1}'])
def test_a_damaged_description_is_made_again(folder: Path, text: str) -> None:
    opened("k", build)
    (folder / f"{K}.json").write_text(text)
    assert_same(opened("k", build))


def test_a_copied_file_is_checked_once_and_kept(folder: Path) -> None:
    opened("k", build)
    path = folder / f"{K}.bin"
    copy = folder / "copy"
    copy.write_bytes(path.read_bytes())
    copy.rename(path)  # another inode, the same content
    before = json.loads((folder / f"{K}.json").read_text())["file"]
    assert_same(opened("k", never))
    after = json.loads((folder / f"{K}.json").read_text())["file"]
    assert before != after
    assert after[2] == path.stat().st_ino


def test_where_nothing_can_be_written_it_works_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert_same(opened("k", build))
    assert len(caplog.records) == 1
    assert "not cached" in caplog.text


def test_an_interrupted_build_leaves_nothing(folder: Path) -> None:
    def broken() -> Iterator[tuple[str, Any]]:
        yield "small", ARRAYS["small"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened("k", broken)
    assert [path.name for path in folder.iterdir()] == [f"{K}.lock"]
    assert_same(opened("k", build))


def _open_slowly(counter: Any) -> None:
    def slow() -> Iterator[tuple[str, Any]]:
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.2)
        yield from ARRAYS.items()

    assert_same(opened("k", slow))


def test_two_processes_build_once() -> None:
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)
    processes = [context.Process(target=_open_slowly, args=(counter,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert counter.value == 1
