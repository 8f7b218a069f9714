"""Defaults a person has set: config.toml, then WHISPER_NPU_*; options typed win over both.

A setting is called like the long option it stands for: `best-of = 3` or WHISPER_NPU_BEST_OF=3.
In the file, a table such as [transcribe] holds for that command only. Values are checked by the
command line, in the same way as an option's.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "WHISPER_NPU_"
# of ours, and no options: two folders, and how the emulated NPU behaves
OTHERS = ("WHISPER_NPU_CACHE", "WHISPER_NPU_CONFIG", "WHISPER_NPU_EMULATOR")


@dataclass(frozen=True)
class Setting:
    """A value and who set it."""

    value: Any
    origin: str  # a file or an environment variable


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration is read from; it need not exist."""
    if named := environ.get("WHISPER_NPU_CONFIG"):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "whisper-npu" / "config.toml"


def read(environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, Setting]]:
    """Command -> option -> setting; the command "" stands for all of them.

    Raises OptionError when the file cannot be read.
    """
    path = config_file(environ)
    settings: dict[str, dict[str, Setting]] = {"": {}}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        table = {}
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} cannot be read: {error}; mend or remove it") from error
    for key, value in table.items():
        part = value if isinstance(value, dict) else {key: value}
        command = key if isinstance(value, dict) else ""
        settings.setdefault(command, {}).update(
            {option.replace("_", "-"): Setting(value, str(path)) for option, value in part.items()}
        )
    for variable, value in environ.items():
        if variable.startswith(PREFIX):
            option = variable.removeprefix(PREFIX).lower().replace("_", "-")
            settings[""][option] = Setting(value, variable)
            for command, part in settings.items():
                if command:  # the environment wins over the file, tables included
                    part.pop(option, None)
    return settings


def of_command(settings: dict[str, dict[str, Setting]], command: str) -> dict[str, Setting]:
    """What is set for one command."""
    return settings[""] | settings.get(command, {})


def require_known(
    settings: dict[str, dict[str, Setting]], options: Mapping[str, frozenset[str]]
) -> None:
    """Raise OptionError for a misspelt name: it would be ignored for ever.

    A variable is taken for misspelt when it looks like an option: there are others of ours.
    options  command -> its long options without dashes
    """
    everywhere = frozenset().union(*options.values())
    for command, part in settings.items():
        if command and command not in options:
            suggestion = _suggestion(command, frozenset(options), "[{}]")
            raise OptionError(f"{config_file()}: there is no command [{command}]{suggestion}")
        known = options[command] if command else everywhere
        for option, setting in part.items():
            if option in known or setting.origin in OTHERS:
                continue
            if not setting.origin.startswith(PREFIX):
                suggestion = _suggestion(option, known, "{}")
                raise OptionError(f"{setting.origin}: unknown setting {option!r}{suggestion}")
            if suggestion := _suggestion(option, known, PREFIX + "{}"):
                raise OptionError(f"{setting.origin} is not the name of an option{suggestion}")


def _suggestion(name: str, known: frozenset[str], form: str) -> str:
    close = get_close_matches(name, known, 1, cutoff=0.8)
    if not close:
        return ""
    found = close[0].upper().replace("-", "_") if form.startswith(PREFIX) else close[0]
    return f"; did you mean {form.format(found)}?"
