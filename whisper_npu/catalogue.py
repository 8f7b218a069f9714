"""The published Whisper models: names, what each can do, where it comes from. No network.

The facts are in models/catalogue.toml; an installed copy has that folder inside the package.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from whisper_npu.errors import ModelError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HERE = Path(__file__).parent
_FILE = "models/catalogue.toml"


@dataclass(frozen=True)
class Repository:
    """A hub repository at a revision; what is None is not known, and not compared."""

    name: str  # owner/name
    revision: str = "main"  # a commit in the catalogue, else what the user wrote
    weights: str | None = None  # name of the file
    bytes: int | None = None  # of the weights, as the next
    sha256: str | None = None


@dataclass(frozen=True)
class PackageFile:
    """A file of a model that Python packages bring, in one piece or in several."""

    name: str
    bytes: int
    sha256: str
    parts: tuple[str, ...]  # paths below where packages are installed


@dataclass(frozen=True)
class Package:
    """Python packages that together bring a model."""

    extra: str  # of this project, which requires them
    versions: dict[str, str]  # name of the package -> version
    files: tuple[PackageFile, ...]


@dataclass(frozen=True)
class KnownModel:
    """A model by name. The same name stays the same weights: its sources are pinned."""

    name: str
    repositories: tuple[Repository, ...]  # the preferred one first
    package: Package | None = None
    alias: str | None = None
    parameters: int | None = None
    languages: str = "?"  # all, or English
    translates: bool = True
    licence: str | None = None
    memory: dict[str, int] | None = None  # bytes at the peak: first, later

    @property
    def size(self) -> int | None:
        """Bytes of the weights in the preferred source."""
        return self.repositories[0].bytes


def _model(entry: dict[str, Any]) -> KnownModel:
    repositories = tuple(Repository(**fields) for fields in entry.pop("repository"))
    package = None
    if fields := entry.pop("package", None):
        files = (PackageFile(**{**file, "parts": tuple(file["parts"])}) for file in fields["file"])
        package = Package(fields["extra"], fields["versions"], tuple(files))
    return KnownModel(repositories=repositories, package=package, **entry)


@cache
def known() -> dict[str, KnownModel]:
    """Short name -> model, in the order of the catalogue: small ones first."""
    installed = _HERE / _FILE
    path = installed if installed.is_file() else _HERE.parent / _FILE
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return {entry["name"]: _model(entry) for entry in entries}


def resolve(name: str) -> KnownModel:
    """A short name (base), or owner/name with an optional @revision. Raises ModelError."""
    for model in known().values():
        if name in (model.name, model.alias):
            return model
    match = re.fullmatch(r"([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?", name, re.ASCII)
    if not match or ".." in name:
        raise ModelError(f"there is no model {name!r}, here or by name: {_instead(name)}")
    for model in known().values():
        for repository in model.repositories:
            if repository.name == match[1] and match[2] in (None, repository.revision):
                return replace(model, name=name, repositories=(repository,), package=None)
    return KnownModel(name, (Repository(match[1], match[2] or "main"),))


def of_weights(sha256: str) -> KnownModel | None:
    """The model whose weights have this SHA-256, wherever they lie; None: not a published one."""
    for model in known().values():
        if sha256 in {repository.sha256 for repository in model.repositories}:
            return model
    return None


def _instead(name: str) -> str:
    alike = get_close_matches(name.lower(), known(), n=2)
    if alike:
        return f"did you mean {' or '.join(alike)}?"
    return "use a folder, owner/name, or a name that `whisper-npu models list` shows"
