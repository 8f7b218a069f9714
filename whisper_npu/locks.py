"""Locks between processes, on files: released when the file is closed, even by a crash."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from whisper_npu.disks import unwritten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """Wait until nobody else holds this file, made when missing; open for appending meanwhile.

    Raises OutputError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)  # a buffer would complain when it is closed
    except OSError as error:
        raise unwritten(path, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def claimed(path: Path) -> FileIO | None:
    """The file, made when missing, held until it is closed; None while somebody else holds it.

    Raises OSError.
    """
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        try:
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:  # noqa: PTH116  both as inodes
                return file
        except FileNotFoundError:
            pass
        file.close()  # its holder finished and removed it between our opening and locking
