"""What a person named -> recordings to transcribe, each with an output of its own."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_npu.errors import OptionError
from whisper_npu.messages import printable
from whisper_npu.options.batch import InputOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

STDIN = Path("-")


@dataclass(frozen=True)
class Recording:
    """An input and where its outputs go."""

    path: Path  # "-" is standard input
    output: str  # relative to the output folder, without extension

    @property
    def name(self) -> str:
        """For people: on one line, and printable whatever bytes the name holds."""
        return printable(self.path)


def find(
    inputs: Sequence[str | os.PathLike[str]], search: InputOptions | None = None
) -> list[Recording]:
    """All recordings, in a stable order, each once, no two with the same output.

    inputs  files, folders, glob patterns, or "-"
    Below a folder the outputs mirror its tree. Raises OptionError for a pattern without a match.
    """
    found: dict[str, tuple[Path, str]] = {}  # real path -> path, relative path for the output
    for given in inputs:
        for path, relative in _expand(os.fspath(given), search or InputOptions()):
            found.setdefault(os.path.realpath(path), (path, relative))
    pairs = list(found.values())
    outputs = _outputs([relative for _, relative in pairs], [path for path, _ in pairs])
    return [Recording(path, output) for (path, _), output in zip(pairs, outputs, strict=True)]


def watch(
    inputs: Sequence[str | os.PathLike[str]],
    search: InputOptions,
    is_stopped: Callable[[], bool],
    interval: float = 2.0,
) -> Iterator[Recording]:
    """Recordings as they appear or change, once they have not been written to for `interval` s."""
    done: dict[Recording, tuple[int, int]] = {}
    while not is_stopped():
        for recording in _found(inputs, search):
            try:
                status = recording.path.stat()
            except OSError:
                continue  # gone again
            now = status.st_size, status.st_mtime_ns
            if time.time() - status.st_mtime >= interval and done.get(recording) != now:
                done[recording] = now
                yield recording
        for _ in range(10):
            if not is_stopped():
                time.sleep(interval / 10)


def require_apart(recordings: Iterable[Recording], written: Iterable[Path]) -> None:
    """Raise OptionError when a file that is to be written is one of the recordings."""
    files = {_file(recording.path): recording for recording in recordings}
    for path in written:
        identity = _file(path)
        if identity and (recording := files.get(identity)):
            raise OptionError(
                f"{recording.name} would be overwritten by {printable(path)}: write elsewhere"
            )


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from others, whatever it is called; None: it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _found(inputs: Sequence[str | os.PathLike[str]], search: InputOptions) -> list[Recording]:
    try:
        return find(inputs, search)
    except OptionError:
        return []  # a pattern that matches nothing yet


def _expand(given: str, search: InputOptions) -> Iterator[tuple[Path, str]]:
    if re.match(r"[a-zA-Z][\w+.-]*://", given):
        raise OptionError(
            f"{printable(given)} is a URL: download it first, for example with curl or yt-dlp, "
            "and name the file"
        )
    if not given:
        raise OptionError("the name of a recording is empty")
    path = Path(given)
    if given == "-":
        yield STDIN, "stdin"
    elif path.is_dir():
        yield from _walk(path, search)
    elif os.path.lexists(path) or not glob.has_magic(given):
        yield path, path.name  # one that is missing fails later, alone
    else:
        names = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  an absolute pattern too
        if not names:
            raise OptionError(f"nothing matches {printable(given)}")
        for name in names:
            if not Path(name).is_dir():
                yield Path(name), Path(name).name
            elif search.recursive:
                yield from _walk(Path(name), search)


def _walk(folder: Path, search: InputOptions) -> Iterator[tuple[Path, str]]:
    """Files below a folder; hidden ones are not meant, and links to folders are not followed."""
    unreadable: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not search.recursive:
            folders.clear()
        for name in sorted(files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if not name.startswith(".") and search.accepts(relative):
                yield path, relative
    for error in unreadable:  # it fails later, alone, and is told
        yield Path(error.filename), Path(error.filename).name


def _outputs(relatives: list[str], paths: list[Path]) -> list[str]:
    """An output per recording: without extension where that tells it from all others.

    a.wav, b.wav -> a, b; a.wav, a.mp3 -> a.wav, a.mp3; x/a.wav, y/a.wav named one by one -> a.wav
    with a few digits of its path. Case and Unicode form do not count: a memory card may not keep
    them apart.
    """

    def key(output: str) -> str:
        return unicodedata.normalize("NFC", output).casefold()

    outputs = [os.path.splitext(relative)[0] or relative for relative in relatives]  # noqa: PTH122  keeps "a/.b"
    tagged = [
        f"{relative}.{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]}"
        for relative, path in zip(relatives, paths, strict=True)
    ]
    for fallback in (relatives, tagged):
        taken = Counter(map(key, outputs))
        outputs = [
            other if taken[key(output)] > 1 else output
            for output, other in zip(outputs, fallback, strict=True)
        ]
    return outputs
