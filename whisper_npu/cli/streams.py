"""Standard output and error as a command line needs them: open, and taking any text."""

from __future__ import annotations

import codecs
import os
import signal
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

from whisper_npu.errors import Interrupted, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


class StandardStream(TextIOWrapper):
    """A standard stream that fails as we do: OutputError, or Interrupted if nobody reads it."""

    def write(self, text: str) -> int:
        """Write; what the encoding does not have is escaped."""
        with self._failing():
            return super().write(text)

    def flush(self) -> None:
        """Write what is waiting."""
        with self._failing():
            super().flush()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # no second error at exit
            if isinstance(error, BrokenPipeError):
                raise Interrupted("", signal.SIGPIPE) from error  # as quietly as others end
            name = "standard output" if self.fileno() == 1 else "standard error"
            raise OutputError(f"cannot write to {name}: {error.strerror}") from error


def prepare() -> None:
    """Open what was closed, and watch over both streams.

    A closed descriptor would be given to the next file that is opened, and a transcript would be
    written into that. In its place comes one that refuses to be written to; what is said on a
    closed standard error is lost.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        _hold(number, flags)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _watched(sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _watched(sys.stderr, 2)


def _hold(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        os.dup2(os.open(os.devnull, flags), number)


def _watched(stream: object, number: int) -> StandardStream:
    if isinstance(stream, TextIOWrapper):
        # ASCII is what a wrong locale says, not what a terminal shows: UTF-8 then, as typer has it
        encoding = "utf-8" if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding
        lines = stream.line_buffering
        return StandardStream(stream.detach(), encoding, "backslashreplace", line_buffering=lines)
    return StandardStream(open(number, "wb", closefd=False), "utf-8")
