"""The folder where this program keeps what it derives from models, and how files get there.

Everything in it can be made again; removing it costs time, never data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu.disks import unwritten
from whisper_npu.errors import ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from whisper_npu.held import HeldFile


def folder() -> Path:
    """$WHISPER_NPU_CACHE, else whisper-npu below $XDG_CACHE_HOME or ~/.cache; may not exist yet."""
    chosen = os.environ.get("WHISPER_NPU_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper-npu"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file or folder name beside `path`, renamed to it when the block succeeds.

    Whoever reads `path` sees the old content or the new, never a part. Raises OutputError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    except OSError as error:
        raise unwritten(path, error) from error
    try:
        new = workplace / path.name
        yield new
        _sync(new)
        if new.is_dir() and path.exists():
            path.rename(workplace / "old")  # a folder only replaces an empty one
        new.rename(path)
        _sync_one(path.parent)  # the name, too, outlives a power cut
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed while `replacing` a path has left beside it.

    Only for who knows that nobody is replacing it now.
    """
    if path.parent.is_dir():
        for name in os.listdir(path.parent):  # noqa: PTH208  names are enough
            if name.startswith(_prefix(path)):
                shutil.rmtree(path.parent / name, ignore_errors=True)


def _prefix(path: Path) -> str:
    """How temporary names begin: short enough for every file system, and for this path alone."""
    digest = zlib.crc32(os.fsencode(path.name))
    return f".{path.name[:40]}-{digest:08x}."


def _sync(path: Path) -> None:
    for part in [path, *path.rglob("*")]:
        _sync_one(part)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(*paths: Path) -> str:
    """Hex digest of a file's content, or of several files' one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def digest(file: HeldFile) -> str:
    """Its sha256, remembered in the cache by path, inode, size and time. Raises OSError."""
    memory = folder() / "digests.json"
    known = remembered(memory)
    key = f"{file.path.resolve()} {file.inode} {file.size} {file.mtime_ns}"
    if key not in known:
        known[key] = file.sha256()
        remember(memory, known)
    return str(known[key])


def fingerprint(files: Iterable[HeldFile]) -> str:
    """Hex digest of the names and contents of files. Raises ModelError."""
    try:
        digests = [f"{file.path.name} {digest(file)}" for file in files]
    except OSError as error:
        raise ModelError(f"the model cannot be read: {error}") from error
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def remembered(path: Path) -> dict[str, Any]:
    """What `remember` kept; nothing where the file is missing or damaged, be it by one letter."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
        if int(checksum, 16) != zlib.crc32(content):
            return {}
        known = json.loads(content)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(path: Path, known: dict[str, Any]) -> None:
    """Keep a table of results for next time, where that is possible."""
    with suppress(OutputError):  # it costs the time to find them again
        keep(path, known)


def keep(path: Path, known: dict[str, Any]) -> None:
    """The same, and on the disk when it returns: a checksum, then JSON. Raises OutputError."""
    content = json.dumps(known, indent=1).encode()
    with replacing(path) as new:
        new.write_bytes(b"%08x\n%b" % (zlib.crc32(content), content))
