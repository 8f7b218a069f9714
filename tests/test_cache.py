"""The cache folder: nothing half written, keys that follow the content."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisper_npu import cache
from whisper_npu.errors import OutputError
from whisper_npu.held import HeldFile


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def fingerprint(folder: Path) -> str:
    return cache.fingerprint(map(HeldFile, sorted(folder.iterdir())))


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHISPER_NPU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/whisper-npu")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "whisper-npu"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for text in ("old", "new"):
        with cache.replacing(path) as new:
            new.write_text(text)
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "graph"
    for name in ("old", "new"):
        with cache.replacing(path) as new:
            new.mkdir()
            (new / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["graph"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with cache.replacing(path) as new:
            new.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"), cache.replacing(tmp_path / "file" / "x"):
        pass


def test_the_fingerprint_follows_content_not_name(model: Path, tmp_path: Path) -> None:
    first = fingerprint(model)
    moved = model.rename(tmp_path / "moved")
    assert fingerprint(moved) == first
    (moved / "model.safetensors").write_bytes(b"Weights")
    assert fingerprint(moved) != first


def test_digests_are_remembered(
    model: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprint(model)
    with monkeypatch.context() as patch:
        patch.setattr(HeldFile, "sha256", lambda file: pytest.fail(f"{file.path} was read again"))
        assert fingerprint(model) == first
    content = bytearray((cache_folder / "digests.json").read_bytes())
    content[-10] ^= 1
    (cache_folder / "digests.json").write_bytes(content)
    assert cache.remembered(cache_folder / "digests.json") == {}
    assert fingerprint(model) == first


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    path, other = tmp_path / ("x" * 251), tmp_path / ("x" * 250)
    with cache.replacing(path) as new, cache.replacing(other) as others:
        new.write_text("a")
        others.write_text("b")
        cache.remove_leftovers(path)
        assert not new.exists()
        assert others.exists()
        new.parent.mkdir()
        new.write_text("a")
    assert sorted(part.name for part in tmp_path.iterdir()) == [other.name, path.name]
