"""The catalogue is complete, and says the same thing in every place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whisper_npu.catalogue import known, of_weights, resolve
from whisper_npu.errors import ModelError

PYPROJECT = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")


def test_every_source_is_pinned() -> None:
    assert len(known()) > 15
    for model in known().values():
        assert model.repositories
        for repository in model.repositories:
            assert re.fullmatch("[0-9a-f]{40}", repository.revision), model.name
            if repository.weights:
                assert re.fullmatch("[0-9a-f]{64}", repository.sha256 or ""), model.name
                assert repository.bytes, model.name
    revisions = [one.revision for model in known().values() for one in model.repositories]
    assert len(revisions) == len(set(revisions))


def test_half_precision_comes_first() -> None:
    for model in known().values():
        sizes = [one.bytes for one in model.repositories if one.bytes]
        assert not sizes or sizes[0] < 1.1 * min(sizes), model.name


def test_what_english_models_cannot_do() -> None:
    for model in known().values():
        if model.name.endswith(".en"):
            assert model.languages == "English"
        assert model.languages in ("all", "English")
        assert not (model.translates and model.languages == "English")


def test_packages_bring_the_weights_of_the_hub() -> None:
    packaged = {model.name: model.package for model in known().values() if model.package}
    assert set(packaged) == {"base", "tiny.en"}
    for name, package in packaged.items():
        sizes = {file.name: (file.bytes, file.sha256) for file in package.files}
        preferred = known()[name].repositories[0]
        assert sizes["model.bin"] == (preferred.bytes, preferred.sha256)
        assert sizes.keys() >= {"config.json", "tokenizer.json"}


def test_the_extras_of_the_project_are_the_packages_of_the_catalogue() -> None:
    for model in known().values():
        if package := model.package:
            extra = re.search(rf"^{package.extra} = \[([^]]*)\]", PYPROJECT, re.MULTILINE)
            assert extra
            required = set(re.findall(r'"([\w-]+==[\w.]+)"', extra[1]))
            assert required == {f"{name}=={of}" for name, of in package.versions.items()}


def test_names() -> None:
    assert resolve("turbo") is resolve("large-v3-turbo")
    assert resolve("large") is resolve("large-v3")
    with pytest.raises(ModelError, match="did you mean small"):
        resolve("smal")


def test_weights_are_known_wherever_they_lie() -> None:
    for model in known().values():
        for repository in model.repositories:
            if repository.sha256:
                assert of_weights(repository.sha256) is model
    assert of_weights("0" * 64) is None
