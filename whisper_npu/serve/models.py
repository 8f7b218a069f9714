"""The models by name: found at the start, loaded when asked for, unloaded when nobody asks."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_npu import sources
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import DeviceError
from whisper_npu.serve.refusals import Refusal
from whisper_npu.transcribe import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.options import DeviceOptions

_log = logging.getLogger(__name__)

ALIAS = "whisper-1"  # OpenAI's name for Whisper: clients send it to any server


@dataclass
class _Known:
    checkpoint: Checkpoint
    model: Model | None = None  # loaded
    users: int = 0
    last_used: float = 0.0  # time.monotonic


class Models:
    """Some models, of which those in use are loaded; the first is the default.

    names  as `load_model` takes them; none: the default of this machine
    say    hears what is downloaded
    All but `names`, `n_mels` and `loaded` belongs to the thread of the models.
    Raises ModelError, OptionError.
    """

    def __init__(
        self,
        names: Sequence[str],
        device: DeviceOptions,
        *,
        offline: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._device = device
        self._known = {}
        for name in names or (None,):
            checkpoint = sources.open_checkpoint(name, offline=offline, say=say)
            self._known[_title(name, checkpoint.path)] = _Known(checkpoint)

    @property
    def names(self) -> list[str]:
        """What can be asked for; the default first."""
        return list(self._known)

    @property
    def loaded(self) -> list[str]:
        """Those in memory."""
        return [name for name, one in self._known.items() if one.model]

    def named(self, name: str | None) -> str:
        """The model that a client means. Raises Refusal."""
        if name is None or name.strip() in ("", ALIAS):
            return self.names[0]
        if name not in self._known:
            message = f"there is no model {name!r} here, only {', '.join(self.names)}"
            raise Refusal(404, message, code="model_not_found", field="model")
        return name

    def checkpoint(self, name: str) -> Checkpoint:
        """What is known of a model that need not be loaded."""
        return self._known[name].checkpoint

    def load(self, name: str) -> str:
        """Load a model before anybody asks for it; what it runs on. Raises as `using`."""
        with self.using(name) as model:
            return model.device.info.name

    @contextmanager
    def using(self, name: str) -> Iterator[Model]:
        """A model, loaded for as long as somebody uses it; after a fault it is loaded anew.

        Raises ModelError, DeviceError.
        """
        one = self._known[name]
        if one.model is None:
            one.model = Model(one.checkpoint, open_device(one.checkpoint, self._device))
            _log.info("%s is loaded", name)
        one.users += 1
        try:
            yield one.model
        except DeviceError:
            one.last_used = -1e9  # nobody may have this one again
            raise
        finally:
            one.users -= 1
            one.last_used = max(one.last_used, time.monotonic()) if one.last_used >= 0 else -1e9
            if one.last_used < 0 and not one.users:
                self._unload(name)

    def unload_idle(self, seconds: float) -> None:
        """Give back what nobody has used for so long."""
        for name, one in self._known.items():
            if one.model and not one.users and time.monotonic() - one.last_used >= seconds:
                self._unload(name)

    def close(self) -> None:
        """Give all of them back."""
        for name in self._known:
            self._unload(name)

    def _unload(self, name: str) -> None:
        one = self._known[name]
        if one.model:
            one.model.close()
            _log.info("%s is unloaded", name)
        one.model, one.last_used = None, 0.0


def _title(name: str | None, path: Path) -> str:
    """What clients call a model: by its name, or by that of its folder."""
    if name is None:
        return sources.name_of(path) or path.stem
    return Path(name).name if Path(name).exists() else name
