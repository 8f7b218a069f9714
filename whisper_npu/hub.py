"""Model names -> folders: Hugging Face downloads, verified before they are believed, or offline.

The cache is the one that other Hugging Face programs use and fill. The transfer is
`huggingface_hub`'s; what is fetched, where it lands and whether it is genuine is decided here,
because a hub is somebody else's computer. Only safetensors and JSON; never a pickle.
`huggingface_hub` reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE and HF_TOKEN when imported.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu.errors import ModelError, OutputError
from whisper_npu.published import KNOWN, Model, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], None]

WANTED = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_JSON = 64 << 20  # bytes; the largest tokenizer.json in use has 4 MB
_SPARE = 64 << 20  # bytes left free on the disk beside the model
_METADATA_WAITS = (1.0, 4.0)  # seconds before another attempt to ask about a model


@dataclass(frozen=True)
class File:
    """One file as the hub describes it."""

    name: str
    size: int  # bytes
    digest: str  # sha256 of large files, git's sha1 of a blob for small ones


def find(name: str, *, offline: bool = False, say: Say | None = None) -> Path:
    """The folder or file of a model: a path as it is, else from the cache, else downloaded.

    say  hears, before any download, what is fetched and how big; default: the log
    Raises ModelError (no such model, offline, damaged), OutputError (disk).
    """
    folder = Path(name).expanduser()
    is_folder = (folder / "config.json").is_file() or (folder.is_dir() and name not in KNOWN)
    if is_folder or folder.is_file():
        return folder
    is_path = name.startswith((".", "~", "/")) or name.partition("@")[0].count("/") > 1
    if is_path:
        raise ModelError(f"there is no model folder {name}")
    model = resolve(name)
    return cached(model) or pull(model, offline=offline, say=say)


def cache_folder() -> Path:
    """Where Hugging Face programs keep what they download."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _storage(model: Model) -> Path:
    return cache_folder() / ("models--" + model.repo.replace("/", "--"))


def cached(model: Model) -> Path | None:
    """The complete folder of a model in the cache, or None."""
    storage = _storage(model)
    commit = model.revision
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        try:
            commit = (storage / "refs" / commit).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            return None
    folder = storage / "snapshots" / commit
    needed = ["config.json", "tokenizer.json", *_weight_names(folder)]
    return folder if all((folder / file).is_file() for file in needed) else None


def others() -> dict[str, Path]:
    """Whisper models in the cache that no short name stands for: name -> folder."""
    found = {}
    pinned = {(model.repo, model.revision) for model in KNOWN.values()}
    for snapshot in sorted(cache_folder().glob("models--*--*/snapshots/*")):
        storage, commit = snapshot.parent.parent, snapshot.name
        repo = storage.name.removeprefix("models--").replace("--", "/", 1)
        if (repo, commit) in pinned or not _is_whisper(snapshot):
            continue
        main = cached(Model(repo, repo, "main"))
        name = repo if snapshot == main else f"{repo}@{commit}"
        with suppress(ModelError):  # a damaged index: not a model to offer
            if cached(Model(name, repo, commit)):
                found[name] = snapshot
    return found


def _is_whisper(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return config["model_type"] == "whisper"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _weight_names(folder: Path) -> list[str]:
    """What holds the weights: one file, or the shards that the index names."""
    if not (folder / INDEX).is_file():
        return [WEIGHTS]
    try:
        files = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(files))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder / INDEX} is damaged: no weight_map") from error
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", name, re.ASCII):
            raise ModelError(f"{folder / INDEX} names the file {name!r}, which is not weights")
    return names


def pull(model: Model, *, offline: bool = False, say: Say | None = None) -> Path:
    """Download what is missing of a model, verify it, and return its folder.

    An interrupted download is continued by the next one. Raises ModelError, OutputError.
    """
    from huggingface_hub import constants

    say = say or logging.getLogger(__name__).info
    if offline or constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{model.name} is not on this machine and we are offline: run "
            f"`whisper-npu models pull {model.name}` with a connection"
        )
    info = _ask(model)
    try:
        commit, licence, files = _describe(model, info)
    except (TypeError, AttributeError) as error:
        raise ModelError(f"{constants.ENDPOINT} answers nonsense about {model.repo}") from error
    storage = _storage(model)
    folder = storage / "snapshots" / commit
    wanted = [files[name] for name in (*WANTED, INDEX) if name in files]
    if WEIGHTS in files:  # both forms present: the single file is the one that is pinned
        wanted = [file for file in wanted if file.name != INDEX] + [files[WEIGHTS]]
    missing = [name for name in ("config.json", "tokenizer.json") if name not in files]
    if missing or not (WEIGHTS in files or INDEX in files):
        raise ModelError(
            f"{model.repo} has no {' and '.join(missing) or 'safetensors weights'}: "
            "not a Whisper model that can be used here"
        )
    total = sum(file.size for file in wanted)
    shards = "" if WEIGHTS in files else " and the shards it names"
    say(
        f"downloading {model.repo} at {commit[:8]} from {constants.ENDPOINT}: {readable(total)}"
        f"{shards}, licence {licence}, into {storage}"
    )
    with _errors_of_the_disk(storage):
        for file in wanted:
            _fetch(model, commit, file, say)
        if WEIGHTS not in files:
            parts = [_listed(files, name, model) for name in _weight_names(folder)]
            say(f"downloading {len(parts)} shards: {readable(sum(part.size for part in parts))}")
            for part in parts:
                _fetch(model, commit, part, say)
        if model.revision != commit:
            _write(storage / "refs" / model.revision, commit)
    return folder


def _listed(files: dict[str, File], name: str, model: Model) -> File:
    if name not in files:
        raise ModelError(f"{model.repo} lacks {name}, which its index names")
    return files[name]


def _describe(model: Model, info: Any) -> tuple[str, str, dict[str, File]]:
    """Commit, licence and files of a model, as the hub tells, checked for plausibility."""
    commit = str(info.sha)
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ModelError(f"the hub names {commit!r} as a commit of {model.repo}")
    if re.fullmatch(r"[0-9a-f]{40}", model.revision) and commit != model.revision:
        raise ModelError(
            f"the hub offers revision {commit[:8]} of {model.repo}, not the pinned "
            f"{model.revision[:8]}; nothing was downloaded"
        )
    files = {}
    for entry in info.siblings or ():
        # a name with a folder in it is never ours, wherever it may point
        if not re.fullmatch(r"\w[\w.-]*\.(json|safetensors)", str(entry.rfilename), re.ASCII):
            continue
        digest = str(entry.lfs.sha256 if entry.lfs else entry.blob_id)
        size = entry.size
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest) or not isinstance(size, int):
            raise ModelError(
                f"the hub gives no checksum or size for {model.repo} {entry.rfilename}"
            )
        file = File(entry.rfilename, size, digest)
        if size < 0 or (file.name.endswith(".json") and size > MAX_JSON):
            raise ModelError(f"the hub says that {model.repo} {file.name} has {size} bytes")
        if file.name == WEIGHTS and model.sha256 and digest != model.sha256:
            raise ModelError(
                f"the hub offers {WEIGHTS} of {model.repo} with sha256 {digest}, not the pinned "
                f"{model.sha256}; nothing was downloaded"
            )
        files[file.name] = file
    licences = [tag[8:] for tag in map(str, info.tags or ()) if tag.startswith("license:")]
    return commit, ", ".join(licences) or model.licence or "not stated", files


def _ask(model: Model) -> Any:
    """What the hub says about a model; busy and broken answers get another chance."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT, library_name="whisper-npu")
    for wait in (*_METADATA_WAITS, None):
        try:
            return api.model_info(
                model.repo,
                revision=model.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
        except Exception as error:  # noqa: PERF203  the HTTP library and its errors vary by version
            status = getattr(getattr(error, "response", None), "status_code", None)
            if wait is None or status in (400, 401, 403, 404):
                raise ModelError(_unreachable(model, error, status)) from error
            time.sleep(wait)
    raise AssertionError  # the last attempt returns or raises


def _unreachable(model: Model, error: Exception, status: int | None) -> str:
    from huggingface_hub import constants

    if status in (401, 403, 404):
        return (
            f"{constants.ENDPOINT} has no model {model.repo} at {model.revision}, or it needs a "
            f"token in HF_TOKEN (answer {status})"
        )
    return f"cannot reach {model.repo} at {constants.ENDPOINT}: {_one_line(error)}; try again later"


def _fetch(model: Model, commit: str, file: File, say: Say) -> None:
    """Make one file of a snapshot present and genuine."""
    storage = _storage(model)
    pointer = storage / "snapshots" / commit / file.name
    if pointer.is_file():
        return
    blob = storage / "blobs" / file.digest
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _lock(cache_folder() / ".locks" / storage.name / f"{file.digest}.lock"):
        if not blob.is_file():
            partial = blob.with_name(f"{blob.name}.incomplete")
            resumed = partial.exists() and partial.stat().st_size > 0
            _require_space(storage, file.size - (partial.stat().st_size if resumed else 0))
            _transfer(model, commit, file, partial)
            if resumed and digest_of(partial, file.digest) != file.digest:
                partial.unlink()  # the part that was there may have been the wrong one
                _transfer(model, commit, file, partial)
            _accept(partial, blob, file, model)
        _link(blob, pointer)
    kind = "sha256" if len(file.digest) == 64 else "git sha1"
    say(f"{file.name}: {readable(file.size)}, {kind} {file.digest}, verified")


def _transfer(model: Model, commit: str, file: File, partial: Path) -> None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazy export

    url = f"{constants.ENDPOINT}/{model.repo}/resolve/{commit}/{file.name}"
    headers = build_hf_headers(library_name="whisper-npu") | {"Accept-Encoding": "identity"}
    with _Bounded(partial, file.size) as stream:
        try:
            http_get(
                url,
                stream,
                resume_size=stream.seek(0, os.SEEK_END),
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.name,
            )
        except (ModelError, KeyboardInterrupt):
            raise
        except Exception as error:  # the HTTP library underneath, and its errors, change by version
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            kept = partial.stat().st_size
            raise ModelError(
                f"the download of {model.repo} {file.name} broke off at {readable(kept)} of "
                f"{readable(file.size)}: {_one_line(error)}; run it again to continue"
            ) from error
        os.fsync(stream.fileno())


class _Bounded(io.FileIO):
    """A file that takes no more bytes than were announced: a hub could send for ever."""

    def __init__(self, path: Path, limit: int) -> None:
        self._limit = limit
        path.touch()
        super().__init__(path, "r+")
        if self.seek(0, os.SEEK_END) > limit:
            self.truncate(0)

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._limit:
            self.truncate(0)
            raise ModelError(f"the hub sends more than the {self._limit} bytes it announced")
        written = super().write(data)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written


def _accept(partial: Path, blob: Path, file: File, model: Model) -> None:
    found = digest_of(partial, file.digest)
    if found != file.digest:
        partial.unlink()
        raise ModelError(
            f"{model.repo} {file.name} arrived damaged: checksum {found}, expected {file.digest}; "
            "it was thrown away, try again"
        )
    partial.replace(blob)


def digest_of(path: Path, like: str) -> str:
    """Checksum of a file, of the same kind as `like`: sha256, or git's sha1 of a blob."""
    if len(like) == 64:
        digest = hashlib.sha256()
    else:  # what git itself uses to name small files; not a defence against an enemy
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(folder: Path) -> dict[str, bool]:
    """File name -> genuine or not, by the checksum that names its blob; without the network.

    A folder outside the cache has no checksums to compare with: raises ModelError.
    """
    genuine = {}
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
            genuine[path.name] = blob.is_file() and digest_of(blob, blob.name) == blob.name
    if not genuine:
        raise ModelError(f"{folder} was not downloaded by name: there is nothing to compare with")
    return genuine


def discard(folder: Path, name: str) -> None:
    """Remove one file of a cached model, so that the next pull fetches it again."""
    (folder / name).resolve().unlink(missing_ok=True)
    (folder / name).unlink(missing_ok=True)


def remove(model: Model) -> int:
    """Delete one revision of a model from the cache; return the bytes that became free."""
    from huggingface_hub import scan_cache_dir

    folder = cached(model)
    storage = _storage(model)
    if folder is None and not storage.is_dir():
        raise ModelError(f"{model.name} is not in the cache")
    if folder is None:  # only partial downloads, or a damaged snapshot: nothing anyone can use
        size = sum(path.stat().st_size for path in storage.rglob("*") if path.is_file())
        shutil.rmtree(storage)
        return size
    strategy = scan_cache_dir(cache_folder()).delete_revisions(folder.name)
    strategy.execute()
    return int(strategy.expected_freed_size)


def size_of(folder: Path) -> int:
    """Bytes of a model folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise OutputError(
            f"the download needs {readable(needed)} and {folder} has {readable(free)} free; "
            "make room, or set HF_HUB_CACHE to a larger disk"
        )


@contextmanager
def _errors_of_the_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write the model into {folder}: {error.strerror}") from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One program at a time; the same lock that other Hugging Face programs take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _link(blob: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)  # a dangling link
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        blob.replace(pointer)  # exFAT knows no links; huggingface_hub does the same


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="ascii")
    partial.replace(path)


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def readable(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
