"""What people are told: on one line, and once."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger
    from pathlib import Path


def printable(path: Path | str) -> str:
    """A path as messages name it, on one line: what is no text, and control characters, escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@lru_cache
def warn_once(log: Logger, message: str) -> None:
    """What several devices or workers meet is said by the first."""
    log.warning("%s", message)
