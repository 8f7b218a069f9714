"""Repositories of the Hugging Face hub -> folders of the cache, verified before they are believed.

The cache is the one that other Hugging Face programs use and fill; transfers, retries and layout
are `huggingface_hub`'s. What is fetched and whether it is genuine is decided here, because a hub
is somebody else's computer. Never a pickle. Files are fetched one by one, by `hf_hub_download`:
with `snapshot_download`, Ctrl-C would wait for what its threads are fetching.
`huggingface_hub` reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE and HF_TOKEN when imported.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib import request
from urllib.parse import urlsplit

from huggingface_hub import constants

from whisper_npu.catalogue import Repository, known
from whisper_npu.disks import unwritten
from whisper_npu.errors import HubUnreachable, ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

_SINGLE, _INDEX, _CTRANSLATE2 = "model.safetensors", "model.safetensors.index.json", "model.bin"
_VOCABULARIES = ("tokenizer.json", "vocabulary.json", "vocabulary.txt")
_BESIDE = ("config.json", "generation_config.json", "preprocessor_config.json", *_VOCABULARIES)
_SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)  # never a path
_COMMIT, _DIGEST = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_SMALL = 64 << 20  # bytes; the largest tokenizer.json in use has 4 MB
_SPARE = 64 << 20  # bytes left free on the disk beside the model
_PATIENCE = 1.8  # seconds until somebody must have answered at the address of the hub
_METADATA_WAITS = (1.0, 4.0)  # seconds before another attempt to ask about a model
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@dataclass(frozen=True)
class File:
    """One file as the hub describes it."""

    name: str
    size: int  # bytes
    digest: str  # sha256 of large files, git's sha1 of a blob for small ones


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def cache_folder() -> Path:
    """Where Hugging Face programs keep what they download."""
    return Path(constants.HF_HUB_CACHE)


def _storage(repository: Repository) -> Path:
    return cache_folder() / ("models--" + repository.name.replace("/", "--"))


def cached(repository: Repository) -> Path | None:
    """The complete folder of a repository in the cache, or None."""
    storage, commit = _storage(repository), repository.revision
    with suppress(OSError, ValueError, ModelError):  # a damaged index is nothing to use, either
        if not _COMMIT.fullmatch(commit):
            commit = (storage / "refs" / commit).read_text(encoding="ascii").strip()
        folder = storage / "snapshots" / commit
        return folder if _COMMIT.fullmatch(commit) and _is_complete(folder) else None
    return None


def _is_complete(folder: Path) -> bool:
    has_words = any((folder / name).is_file() for name in _VOCABULARIES)
    needed = ["config.json", *_weight_names(folder)]
    return has_words and all((folder / name).is_file() for name in needed)


def _weight_names(folder: Path) -> list[str]:
    """What holds the weights: one file, or the shards that the index names. Raises ModelError."""
    single = next((name for name in (_SINGLE, _CTRANSLATE2) if (folder / name).is_file()), _SINGLE)
    if not (folder / _INDEX).is_file():
        return [single]
    try:
        files = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(files))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder / _INDEX} is damaged: no weight_map") from error
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise ModelError(f"{folder / _INDEX} names the file {name!r}, which is not weights")
    return names


def others() -> dict[str, Path]:
    """Whisper models in the cache that no short name stands for: name -> folder."""
    repositories = (one for model in known().values() for one in model.repositories)
    pinned = {(one.name, one.revision) for one in repositories}
    found = {}
    for snapshot in sorted(cache_folder().glob("models--*--*/snapshots/*")):
        name = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        is_new = (name, snapshot.name) not in pinned and _is_whisper(snapshot)
        if is_new and cached(Repository(name, snapshot.name)):
            is_main = snapshot == cached(Repository(name))
            found[name if is_main else f"{name}@{snapshot.name}"] = snapshot
    return found


def _is_whisper(folder: Path) -> bool:
    """Whether config.json says so, or the word that CTranslate2's weights begin with."""
    try:
        if (folder / _CTRANSLATE2).is_file():
            with (folder / _CTRANSLATE2).open("rb") as file:
                return b"WhisperSpec" in file.read(64)
        return json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "whisper"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def pull(repository: Repository, say: Callable[[str], None]) -> Path:
    """Download what is missing of a repository, verify it, and return its folder.

    say  hears, before any download, what is fetched and how big
    Files that have arrived stay. Raises HubUnreachable, ModelError, OutputError.
    """
    try:
        commit, licence, files = _offer(repository, _ask(repository))
    except (TypeError, AttributeError) as error:
        raise ModelError(f"{constants.ENDPOINT} answers nonsense on {repository.name}") from error
    folder = _storage(repository) / "snapshots" / commit
    size = sum(file.size for file in files)
    say(
        f"downloading {repository.name} at {commit[:8]} from {constants.ENDPOINT}: "
        f"{readable(size)}, licence {licence}, into {folder}"
    )
    for file in files:
        _fetch(repository, file, folder)
        kind = "sha256" if len(file.digest) == 64 else "git sha1"
        say(f"{file.name}: {readable(file.size)}, {kind} {file.digest}, verified")
    if not _is_complete(folder):
        raise ModelError(f"{repository.name} lacks a file that its index names")
    return folder


def _offer(repository: Repository, info: Any) -> tuple[str, str, list[File]]:
    """Commit, licence and files to fetch, as the hub tells, checked for plausibility."""
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise ModelError(f"the hub names {commit!r} as a commit of {repository.name}")
    if _COMMIT.fullmatch(repository.revision) and commit != repository.revision:
        raise ModelError(
            f"the hub offers revision {commit[:8]} of {repository.name}, not the pinned "
            f"{repository.revision[:8]}; nothing was downloaded"
        )
    entries = {str(entry.rfilename): entry for entry in info.siblings or ()}
    forms = [repository.weights] if repository.weights else [_SINGLE, _INDEX, _CTRANSLATE2]
    weights = next((name for name in forms if name in entries), None)
    lacking = "" if weights else "safetensors weights"
    if not entries.keys() & {*_VOCABULARIES}:
        lacking = "tokenizer.json"
    if "config.json" not in entries:
        lacking = "config.json"
    if lacking:
        raise ModelError(f"{repository.name} has no {lacking}: not a Whisper model of use here")
    shards = [name for name in entries if _SHARD.fullmatch(name)] if weights == _INDEX else []
    names = [*(name for name in _BESIDE if name in entries), weights, *sorted(shards)]
    files = [_plausible(repository, name, entries[name]) for name in names if name]
    tags = [str(tag) for tag in info.tags or ()]
    licence = ", ".join(tag[8:] for tag in tags if tag.startswith("license:")) or "not stated"
    return commit, licence, files


def _plausible(repository: Repository, name: str, entry: Any) -> File:
    """One file that the hub offers. Raises ModelError."""
    size, digest = entry.size, str(entry.lfs.sha256 if entry.lfs else entry.blob_id)
    is_small = name in (*_BESIDE, _INDEX)
    if not isinstance(size, int) or not 0 <= size <= (_MAX_SMALL if is_small else 1 << 40):
        raise ModelError(f"the hub says that {repository.name} {name} has {size!r} bytes")
    if not _DIGEST.fullmatch(digest):
        raise ModelError(f"the hub gives {digest!r} as checksum of {repository.name} {name}")
    if name == repository.weights and repository.sha256 not in (None, digest):
        raise ModelError(
            f"the hub offers {name} of {repository.name} with sha256 {digest}, not the pinned "
            f"{repository.sha256}; nothing was downloaded"
        )
    return File(name, size, digest)


def _ask(repository: Repository) -> Any:
    """What the hub says about a repository; busy and broken answers get another chance."""
    asked = f"{repository.name} at {constants.ENDPOINT}"
    if not _is_answered(constants.ENDPOINT):
        raise HubUnreachable(f"cannot reach {asked}: nobody answers")
    from huggingface_hub import HfApi

    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    ask = partial(HfApi(library_name="whisper-npu").model_info, repository.name, timeout=patience)
    for wait in (*_METADATA_WAITS, None):
        try:
            return ask(revision=repository.revision, files_metadata=True)
        except Exception as error:  # noqa: PERF203  the HTTP library and its errors vary by version
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403, 404):
                raise ModelError(
                    f"{constants.ENDPOINT} has no model {repository.name} at "
                    f"{repository.revision}, or it needs a token in HF_TOKEN (answer {status})"
                ) from error
            if wait is None or status == 400:
                why = f"cannot reach {asked}: {_one_line(error)}; try again later"
                raise HubUnreachable(why) from error
            time.sleep(wait)
    raise AssertionError  # the last attempt returns or raises


def _is_answered(address: str) -> bool:
    """Whether somebody listens at a URL, or at the proxy to it, within a short time.

    In a thread, because looking up a name knows no time limit and may take ten seconds.
    """
    heard = threading.Event()

    def knock() -> None:
        with suppress(OSError, ValueError):
            url, proxies = urlsplit(address), request.getproxies()
            proxy = proxies.get(url.scheme) or proxies.get("all")
            if proxy and not request.proxy_bypass(url.hostname or ""):
                url = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            port = url.port or (80 if url.scheme == "http" else 443)
            socket.create_connection((url.hostname, port), _PATIENCE / 2).close()
            heard.set()

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(_PATIENCE)
    return heard.is_set()


def _fetch(repository: Repository, file: File, folder: Path) -> None:
    """Make one file of a snapshot present and genuine."""
    path = folder / file.name
    try:
        if not path.is_file():
            _require_space(file.size)
        arrived = _download(repository, file)
    except (ModelError, OutputError):
        raise
    except Exception as error:  # the HTTP library underneath, and its errors, change by version
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise unwritten(folder, error) from error
        raise ModelError(
            f"the download of {repository.name} {file.name} ({readable(file.size)}) broke off: "
            f"{_one_line(error)}; run it again"
        ) from error
    if arrived != path:
        raise ModelError(f"the hub sent {arrived}, not the announced {path}; try again")
    if (found := digest_of(path, file.digest)) != file.digest:
        discard(folder, file.name)
        raise ModelError(
            f"{repository.name} {file.name} arrived damaged: checksum {found}, expected "
            f"{file.digest}; it was thrown away, try again"
        )


def _download(repository: Repository, file: File) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    url = hf_hub_url(repository.name, file.name, revision=repository.revision)
    offered = get_hf_file_metadata(url, timeout=patience)
    if not re.fullmatch(r"[\w-]+", offered.etag or ""):  # it becomes a file name, whatever it says
        told = f"{offered.etag!r} as checksum"
        raise ModelError(f"the hub gives {told} of {repository.name} {file.name}")
    if len(file.digest) == 64 and offered.size not in (None, file.size):  # small ones are packed
        raise ModelError(
            f"the hub would send {readable(offered.size)} for {repository.name} {file.name}, not "
            f"the {readable(file.size)} that it announced; nothing was downloaded"
        )
    path = hf_hub_download(
        repository.name,
        file.name,
        revision=repository.revision,
        cache_dir=cache_folder(),
        etag_timeout=patience,
        library_name="whisper-npu",
    )
    return Path(path)


def _require_space(needed: int) -> None:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise OutputError(
            f"the download needs {readable(needed)} and {folder} has {readable(free)} free; "
            "make room, or set HF_HUB_CACHE to a larger disk"
        )


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
    blobs = {path.name: path.resolve() for path in sorted(folder.iterdir())}
    genuine = {
        name: blob.is_file() and digest_of(blob, blob.name) == blob.name
        for name, blob in blobs.items()
        if _DIGEST.fullmatch(blob.name)
    }
    if not genuine:
        raise ModelError(f"{folder} was not downloaded by name: there is nothing to compare with")
    return genuine


def discard(folder: Path, name: str) -> None:
    """Remove one file of a cached model, so that the next pull fetches it again."""
    (folder / name).resolve().unlink(missing_ok=True)
    (folder / name).unlink(missing_ok=True)


def remove(repository: Repository) -> int:
    """Delete one revision of a repository from the cache; return the bytes that became free."""
    from huggingface_hub import scan_cache_dir

    storage = _storage(repository)
    if folder := cached(repository):
        strategy = scan_cache_dir(cache_folder()).delete_revisions(folder.name)
        strategy.execute()
        return int(strategy.expected_freed_size)
    if any(storage.glob("snapshots/*")):
        return 0  # another revision, which somebody may use
    size = sum(path.stat().st_size for path in storage.rglob("*") if path.is_file())
    shutil.rmtree(storage, ignore_errors=True)  # parts of a download that was given up
    return size


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def readable(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
