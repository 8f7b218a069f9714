"""A memory-mapped binary file, read from front to back and never beyond its end."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.errors import ModelError
from whisper_npu.held import HeldFile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file; less of what is shorter, nothing of what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


class Mapped:
    """A file and the place up to which it was read. Raises ModelError where it is cut short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = 0
        try:
            self.file = HeldFile(path)
            self._bytes = self.file.mapped()
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise ModelError(f"{path} cannot be read: {error}") from error

    @property
    def ended(self) -> bool:
        """Whether all was read."""
        return self._place == len(self._bytes)

    def skip(self, n_bytes: int, what: str) -> int:
        """Pass over so many bytes; where they begin."""
        start = self._place
        if not 0 <= n_bytes <= len(self._bytes) - start:
            raise ModelError(f"{self.path} is damaged or cut short: it ends within {what}")
        self._place = start + n_bytes
        return start

    def numbers(self, kinds: str, what: str) -> tuple[int, ...]:
        """Little-endian integers of the kinds that `struct` names."""
        layout = struct.Struct("<" + kinds)
        return layout.unpack_from(self._bytes, self.skip(layout.size, what))

    def text(self, n_bytes: int, what: str) -> bytes:
        """Bytes of a name or a word."""
        start = self.skip(n_bytes, what)
        return self._bytes[start : start + n_bytes]

    def array(self, start: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Values that lie in the file from `start` on, read-only and not copied."""
        return np.frombuffer(self._bytes, dtype, math.prod(shape), start).reshape(shape)
