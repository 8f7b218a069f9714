"""What people are told: on one line, and once."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger
    from pathlib import Path


def printable(path: Path | str) -> str:
    """A path or text as messages show it, on one line: control characters and non-text escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(character: str) -> str:
    """A byte of a file name that is no text shows as that byte."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return rf"\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


@lru_cache
def warn_once(log: Logger, message: str) -> None:
    """What several devices or workers meet is said by the first."""
    log.warning("%s", message)
