"""Files that are read for as long as the program runs: models, and what is made from them.

Nothing happens to us when another file takes the name of one that is open, or when the name is
removed: that is how this program itself, package managers and downloads put files in their place.
A program that writes into the file changes what we read, and one that cuts it short ends us by
SIGBUS; neither can be prevented, but both change the size or the time of the open file.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from typing import TYPE_CHECKING

from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


class HeldFile:
    """A file that stays open until nobody uses the object any more. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size, self.mtime_ns, self.inode = self._status()

    def _status(self) -> tuple[int, int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns, status.st_ino

    def mapped(self) -> mmap.mmap:
        """Its bytes, read when they are looked at. Raises OSError, ValueError for an empty file."""
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    @property
    def name_while_open(self) -> str:
        """What opens this very file again, whatever has its name now."""
        return f"/proc/self/fd/{self._descriptor}"

    def text(self) -> str:
        """All of it. Raises OSError, UnicodeDecodeError."""
        with open(self.name_while_open, encoding="utf-8") as file:  # noqa: PTH123  no real path
            return file.read()

    def sha256(self) -> str:
        """Hex digest of its content. Raises OSError."""
        digest, place = hashlib.sha256(), 0
        while block := os.pread(self._descriptor, 1 << 20, place):
            digest.update(block)
            place += len(block)
        return digest.hexdigest()

    def require_unchanged(self) -> None:
        """Raise ModelError when somebody has written into the file since it was opened."""
        if self._status() != (self.size, self.mtime_ns, self.inode):
            raise ModelError(
                f"{self.path} was changed while it was in use: what was heard with it since is "
                "not kept. Run the same command again, and replace such files only under another "
                "name that is then renamed"
            )
