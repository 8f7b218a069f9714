"""What a batch has done, on disk as it happens: nothing is lost by a kill or a power cut.

In the output folder, `.whisper-npu/journal.jsonl` gets one line per finished or failed recording,
and `.whisper-npu/<recording>.jsonl` holds the windows of one that is being worked on. That file
is also the claim: whoever holds its lock may write the recording's outputs; nobody else does.
Lines that a crash tore are ignored.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whisper_npu.disks import unwritten
from whisper_npu.errors import OutputError
from whisper_npu.events import State
from whisper_npu.locks import claimed, locked
from whisper_npu.transcript import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

FOLDER = ".whisper-npu"


@dataclass(frozen=True)
class Source:
    """A recording as it was when it was read."""

    size: int
    mtime_ns: int
    content: str  # sha256


@dataclass(frozen=True)
class Outcome:
    """The last that is known of a recording."""

    status: str  # done or failed
    work: str  # fingerprint of model and options
    source: Source
    outputs: tuple[str, ...] = ()  # relative to the output folder
    error: str = ""


class Journal:
    """The journal of one output folder; several processes may share it. Raises OutputError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._path = self._folder / "journal.jsonl"
        self._entries: dict[str, Outcome] = {}
        self._read = 0  # bytes
        self._lock = threading.Lock()
        with _writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Read what has been added since, by us or by others."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot read {self._path}: {error.strerror}") from error
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for record in _records(whole):
            try:
                entry = Outcome(
                    status=record["status"],
                    work=record["work"],
                    source=Source(record["size"], record["mtime_ns"], record["content"]),
                    outputs=tuple(record.get("outputs", ())),
                    error=record.get("error", ""),
                )
                self._entries[record["recording"]] = entry
            except (KeyError, TypeError):  # noqa: PERF203  another kind of line, or a damaged one
                continue

    def entry(self, recording: str) -> Outcome | None:
        """The last entry of a recording."""
        return self._entries.get(recording)

    def add(self, recording: str, entry: Outcome, **more: Any) -> None:
        """Append one entry, and be sure that it is on the disk."""
        source = asdict(entry.source)
        record = {"recording": recording, "status": entry.status, "work": entry.work, **source}
        self.note({**record, "outputs": entry.outputs, "error": entry.error, **more})
        self._entries[recording] = entry

    def note(self, record: dict[str, Any]) -> None:
        """Append a line of any kind."""
        with _writing(self._path), locked(self._path) as file:
            _append(file, record)

    def _part(self, recording: str) -> Path:
        name = hashlib.sha256(os.fsencode(recording)).hexdigest()[:32]
        return self._folder / f"{name}.jsonl"

    def was_left(self, recording: str) -> bool:
        """Whether somebody works on a recording, or was killed over it."""
        return self._part(recording).exists()

    @contextmanager
    def claim(self, recording: str) -> Iterator[Claim | None]:
        """Hold a recording; None: another process holds it. Released by `with`, or by death."""
        path = self._part(recording)
        with _writing(path):
            file = claimed(path)
        if file is None:
            yield None
            return
        with file:
            self.refresh()  # the one who held it before may have finished it
            held = Claim(path, file)
            yield held
            held.forget_if_empty()


class Claim:
    """The finished windows of one recording, kept until its outputs are written."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path = path
        self._file = file
        self.interrupted = os.fstat(file.fileno()).st_size > 0  # somebody began before us

    def restore(self, work: str, content: str) -> tuple[State | None, list[Segment]]:
        """Where to go on, and the segments found so far; forgets those of another content."""
        self._file.seek(0)
        data = self._file.read()
        records = list(_records(data[: data.rfind(b"\n") + 1]))
        state, segments = None, []
        if records and records[0] == {"work": work, "content": content}:
            try:
                for record in records[1:]:
                    state, found = progress(record)
                    segments += found
            except (KeyError, TypeError, ValueError):
                state, segments = None, []  # damaged: begin again
        if state is None:
            self._restart(work, content)
        return state, segments

    def clear(self) -> None:
        """Begin again, whatever was done before."""
        with _writing(self._path):
            self._file.truncate(0)

    def _restart(self, work: str, content: str) -> None:
        self.clear()
        with _writing(self._path):
            _append(self._file, {"work": work, "content": content})

    def add(self, state: State, segments: list[Segment]) -> None:
        """One more window is done."""
        with _writing(self._path):
            _append(self._file, progress_record(state, segments))

    def forget(self) -> None:
        """The outputs are written, or the recording failed: nothing to continue."""
        with _writing(self._path):
            self._path.unlink(missing_ok=True)

    def forget_if_empty(self) -> None:
        """Leave no file where there was no work."""
        if os.fstat(self._file.fileno()).st_size == 0:
            self.forget()


def _append(file: FileIO, record: dict[str, Any]) -> None:
    """One line, in one write, after the end of a line; all of it or nothing."""
    size = file.seek(0, os.SEEK_END)
    line = json.dumps(record).encode("ascii") + b"\n"
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        line = b"\n" + line  # the line before was torn
    if file.write(line) != len(line):
        file.truncate(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def progress_record(state: State, segments: Sequence[Segment]) -> dict[str, Any]:
    """A finished window as JSON knows it: where to go on, and what was heard in it."""
    return {"state": asdict(state), "segments": [asdict(segment) for segment in segments]}


def progress(record: dict[str, Any]) -> tuple[State, list[Segment]]:
    """The same back. Raises KeyError, TypeError, ValueError."""
    state = record["state"]
    recent = None if state["recent"] is None else tuple(state["recent"])
    return State(**state | {"recent": recent}), [_segment(found) for found in record["segments"]]


def _segment(record: dict[str, Any]) -> Segment:
    timed = {name: _words(record[name]) for name in ("words", "aligned")}
    return Segment(**record | timed | {"tokens": tuple(record["tokens"])})


def _words(records: list[dict[str, Any]] | None) -> tuple[Word, ...] | None:
    return None if records is None else tuple(Word(**record) for record in records)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from error
