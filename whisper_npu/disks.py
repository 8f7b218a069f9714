"""What it means that a file cannot be written: one file's matter, or the whole disk's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from whisper_npu.errors import DiskError, OutputError
from whisper_npu.messages import printable

_FAULTS = {
    errno.ENOSPC: "no space is left on the disk at {}: make room there",
    errno.EDQUOT: "your share of the disk at {} is used up: make room there",
    errno.EROFS: "the disk at {} is read-only: make it writable, or write elsewhere",
    errno.EIO: "the disk at {} fails: write elsewhere",
}


def unwritten(path: Path, error: OSError) -> OutputError:
    """What to raise when a file cannot be written: DiskError if no other could be, either."""
    if error.errno in _FAULTS:
        fault = _FAULTS[error.errno].format(printable(_mounted_at(path)))
        return DiskError(f"cannot write {path}: {fault}, then run the same command again")
    file = next((parent for parent in path.parents if parent.is_file()), None)
    reason = f"{file} is a file, not a folder" if file else str(error.strerror)
    return OutputError(f"cannot write {path}: {reason}")


def _mounted_at(path: Path) -> Path:
    """The folder that the disk of a path is mounted at; the path need not exist."""
    place = Path(os.path.realpath(path))
    while not place.is_mount() and place != place.parent:
        place = place.parent
    return place
