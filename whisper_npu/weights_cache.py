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
import mmap
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import cache
from whisper_npu.errors import OutputError
from whisper_npu.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import stat_result
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

LAYOUT = 1  # of the two files
PAGE, LINE = 4096, 64  # bytes: arrays of a page or more start on a page, others on a cache line

_log = logging.getLogger(__name__)


def key(fingerprint: str, order: str, version: int) -> str:
    """The name of weights in one order: changes when anything that decides their bytes does.

    fingerprint  of the model: `Checkpoint.fingerprint`
    order        who reads them and how: "cpu-f16-int8", "npu-rk3588-fp16"
    version      of that order
    """
    return f"{fingerprint[:32]}-{order}-v{LAYOUT}.{version}"


def open_weights(
    key: str, build: Callable[[], Iterable[tuple[str, Array]]]
) -> dict[str, NDArray[Any]]:
    """The arrays that `build` makes, by name: read-only and memory-mapped, built when missing.

    build  yields (name, array) one at a time; called at most once, and not at all when cached
    """
    folder = cache.folder() / "weights"
    try:
        arrays = _read(folder, key)
        if arrays is None:
            with locked(folder / f"{key}.lock"):
                arrays = _read(folder, key)  # somebody else may just have built it
                if arrays is None:
                    _write(folder, key, build())
                    arrays = _read(folder, key)
    except (OSError, OutputError) as error:
        _log.warning("weights are not cached, each start converts them again: %s", error)
        return dict(build())
    if arrays is None:  # damaged between the write and the read: a failing disk
        _log.warning("weights are not cached: %s cannot be read back", folder / f"{key}.bin")
        return dict(build())
    return arrays


def _identity(status: stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read(folder: Path, key: str) -> dict[str, Array] | None:
    """The arrays, or None when they are missing or damaged."""
    data, description = folder / f"{key}.bin", folder / f"{key}.json"
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        with data.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        identity = _identity(data.stat())
        entries, remembered = content["arrays"], content["file"]
        if identity != remembered:
            if not _is_intact(mapped, entries):
                return None
            _describe(description, identity, entries)
        return {
            name: np.frombuffer(
                mapped, np.dtype(entry["dtype"]), int(np.prod(entry["shape"])), entry["offset"]
            ).reshape(entry["shape"])
            for name, entry in entries.items()
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


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
    _describe(folder / f"{key}.json", _identity(path.stat()), entries)


def _describe(path: Path, identity: list[int], entries: dict[str, Any]) -> None:
    with cache.replacing(path) as new:
        new.write_text(json.dumps({"file": identity, "arrays": entries}), encoding="utf-8")
