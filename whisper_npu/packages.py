"""Models that lie in installed Python packages: data to be found and verified, never imported.

For networks with a mirror of packages and no hub. A model in one piece is used where it lies; one
in several pieces is joined once in our cache.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj, rmtree
from typing import TYPE_CHECKING

from whisper_npu import cache
from whisper_npu.errors import ModelError
from whisper_npu.held import HeldFile

if TYPE_CHECKING:
    from whisper_npu.catalogue import KnownModel, Package, PackageFile


def find(model: KnownModel, *, join: bool = True) -> Path | None:
    """The folder of a model that packages have brought, verified; None: they are not installed.

    join  False: where pieces would be joined, the folder of the first one
    Raises ModelError for other bytes than the catalogue's, OutputError when joining fails.
    """
    package = model.package
    if package is None:
        return None
    joined = _joined(model.name, package)
    if joined.is_dir():
        paths = {file: [joined / file.name] for file in package.files}
    else:
        paths = {file: [*filter(None, map(_place, file.parts))] for file in package.files}
        if any(len(paths[file]) < len(file.parts) for file in package.files):
            return None
    for file, parts in paths.items():
        if not _is_genuine(parts, file):
            raise ModelError(f"{parts[0]} is not that of {names(package)}: {cure(model)}")
    first = next(iter(paths.values()))[0].parent
    if not join or all(len(parts) == 1 for parts in paths.values()):
        return first
    with cache.replacing(joined) as folder:
        folder.mkdir()
        for file, parts in paths.items():
            with (folder / file.name).open("wb") as whole:
                for part in parts:
                    with part.open("rb") as piece:
                        copyfileobj(piece, whole, 1 << 20)
    return joined


def genuine(model: KnownModel, folder: Path) -> dict[str, bool]:
    """File name -> whether it is the catalogue's, read anew."""
    files = model.package.files if model.package else ()
    return {file.name: _is_genuine([folder / file.name], file, anew=True) for file in files}


def _is_genuine(parts: list[Path], file: PackageFile, *, anew: bool = False) -> bool:
    """Compare size and SHA-256; the cache remembers that of a whole file."""
    try:
        if sum(part.stat().st_size for part in parts) != file.bytes:
            return False
        found = (
            cache.digest(HeldFile(parts[0]))
            if len(parts) == 1 and not anew
            else cache.sha256(*parts)
        )
    except OSError:
        return False
    return found == file.sha256


def cure(model: KnownModel) -> str:
    """What helps against damage."""
    extra = model.package.extra if model.package else ""
    return (
        f"`whisper-npu models rm {model.name}`, then "
        f"`pip install --force-reinstall 'whisper-npu[{extra}]'`"
    )


def forget(model: KnownModel) -> int:
    """Remove what was joined in our cache; return the bytes that became free."""
    if model.package is None or not (joined := _joined(model.name, model.package)).is_dir():
        return 0
    size = sum(path.stat().st_size for path in joined.iterdir())
    rmtree(joined)
    return size


def _joined(name: str, package: Package) -> Path:
    return cache.folder() / "models" / f"{name}-{package.files[0].sha256[:8]}"


def names(package: Package) -> str:
    """The packages with their versions, for people."""
    return ", ".join(f"{name} {version}" for name, version in package.versions.items())


def _place(part: str) -> Path | None:
    """Where a file of a package lies; looking a top-level package up runs nothing of it."""
    top, _, rest = part.partition("/")
    spec = find_spec(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / rest).is_file():
            return path
    return None
