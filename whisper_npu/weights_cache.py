"""Weights in the order a device wants them: made once, kept on disk, memory-mapped from then on.

One key is two files in the cache folder: `weights/KEY.bin`, the arrays one after another, and
`weights/KEY.json`, their names, types, shapes, places and checksums. A key names the content of a
checkpoint, the order of the arrays and its version: `key`.

An open reads no weights. The description remembers size, time and inode of the file it was written
for; when they differ (copied, restored, touched) every checksum is computed once, and a file that
fails is made again. Two processes that want the same key build it once, under a lock. Where nothing
can be written the arrays are made in memory each time, and a warning says so once.
"""

from __future__ import annotations

import json
import logging
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import cache
from whisper_npu.errors import OutputError
from whisper_npu.held import HeldFile
from whisper_npu.locks import locked

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint

    Array = NDArray[Any]

LAYOUT = 1  # of the two files
PAGE, LINE = 4096, 64  # bytes: arrays of a page or more start on a page, others on a cache line

_log = logging.getLogger(__name__)


def key(fingerprint: str, order: str, version: int) -> str:
    """The name of weights in one order: changes when anything that decides their bytes does."""
    return f"{fingerprint[:32]}-{order}-v{LAYOUT}.{version}"


def open_weights(
    checkpoint: Checkpoint,
    order: str,
    version: int,
    build: Callable[[], Iterable[tuple[str, Array]]],
) -> dict[str, NDArray[Any]]:
    """The arrays that `build` makes, by name: read-only and memory-mapped, built when missing.

    checkpoint  what they are made from; it holds the file that they lie in
    order       who reads them and how: "cpu-f16-int8", "npu-rk3588-fp16"
    version     of that order
    build       yields (name, array) one at a time; called at most once, not at all when cached

    Raises ModelError when the checkpoint changes meanwhile.
    """
    folder, name = cache.folder() / "weights", key(checkpoint.fingerprint, order, version)
    try:
        found = _read(folder, name)
        if found is None:
            with locked(folder / f"{name}.lock"):
                found = _read(folder, name)  # somebody else may just have built it
                if found is None:
                    _write(folder, name, _sound(build, checkpoint))
                    found = _read(folder, name)
    except (OSError, OutputError) as error:
        _log.warning("weights are not cached, each start converts them again: %s", error)
        return dict(_sound(build, checkpoint))
    if found is None:  # damaged between the write and the read: a failing disk
        _log.warning("weights are not cached: %s cannot be read back", folder / f"{name}.bin")
        return dict(_sound(build, checkpoint))
    arrays, file = found
    checkpoint.hold(file)
    return arrays


def _sound(
    build: Callable[[], Iterable[tuple[str, Array]]], checkpoint: Checkpoint
) -> Iterator[tuple[str, Array]]:
    """What is built, of a model that stayed as it was until the end."""
    yield from build()
    checkpoint.require_unchanged()


def _identity(file: HeldFile) -> list[int]:
    return [file.size, file.mtime_ns, file.inode]


def _read(folder: Path, key: str) -> tuple[dict[str, Array], HeldFile] | None:
    """The arrays and the file they lie in, or None when they are missing or damaged."""
    data, description = folder / f"{key}.bin", folder / f"{key}.json"
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        file = HeldFile(data)
        mapped, identity = file.mapped(), _identity(file)
        entries, remembered = content["arrays"], content["file"]
        if identity != remembered:
            if not _is_intact(mapped, entries):
                return None
            _describe(description, identity, entries)
        arrays = {
            name: np.frombuffer(
                mapped, np.dtype(entry["dtype"]), int(np.prod(entry["shape"])), entry["offset"]
            ).reshape(entry["shape"])
            for name, entry in entries.items()
        }
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return arrays, file


def _is_intact(mapped: mmap.mmap, entries: dict[str, Any]) -> bool:
    with memoryview(mapped) as view:
        for entry in entries.values():
            size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
            with view[entry["offset"] : entry["offset"] + size] as part:
                if len(part) != size or zlib.crc32(part) != entry["crc32"]:
                    return False
    return True


def _write(folder: Path, key: str, arrays: Iterable[tuple[str, Array]]) -> None:
    path = folder / f"{key}.bin"
    entries = {}
    with cache.replacing(path) as new, new.open("wb") as file:
        for name, value in arrays:
            array = np.ascontiguousarray(value)
            file.write(bytes(-file.tell() % (PAGE if array.nbytes >= PAGE else LINE)))
            entries[name] = {
                "dtype": array.dtype.str,
                "shape": value.shape,
                "offset": file.tell(),
                "crc32": zlib.crc32(array.data),
            }
            file.write(array.data)
        file.write(bytes(LINE))  # so that an empty array at the end lies within the file
    _describe(folder / f"{key}.json", _identity(HeldFile(path)), entries)


def _describe(path: Path, identity: list[int], entries: dict[str, Any]) -> None:
    with cache.replacing(path) as new:
        new.write_text(json.dumps({"file": identity, "arrays": entries}), encoding="utf-8")
