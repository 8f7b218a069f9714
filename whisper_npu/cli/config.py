"""whisper-npu config: what is set, and by whom. Also hands the settings to all commands."""

from __future__ import annotations

from json import dumps
from typing import Annotated, Any

import typer

from whisper_npu import settings
from whisper_npu.cli.flags import SETTINGS
from whisper_npu.cli.help import Command, typer_app
from whisper_npu.errors import OptionError

app = typer_app(
    name="config", help="Show the settings and where they come from.", no_args_is_help=True
)


def _options(command: Any) -> dict[str, Any]:
    """Long option without dashes -> the parameter it sets; of a group, those of its commands."""
    found: dict[str, Any] = {}
    for part in getattr(command, "commands", {}).values():
        found |= _options(part)
    for parameter in command.params:
        names = [name[2:] for name in parameter.opts if name.startswith("--") and name != "--help"]
        found |= dict.fromkeys(names, parameter)
    return found


def install(ctx: typer.Context) -> None:
    """Make the settings the defaults of every command.

    Raises OptionError for a misspelt name, and for a wrong value if the command that runs needs it.
    """
    found = settings.read()
    commands: dict[str, Any] = ctx.command.commands  # type: ignore[attr-defined]  # it is a group
    options = {name: frozenset(_options(command)) for name, command in commands.items()}
    settings.require_known(found, options)
    name = ctx.invoked_subcommand or ""
    if name in commands:
        here = settings.of_command(found, name)
        ctx.meta[SETTINGS] = here
        ctx.default_map = {name: _defaults(commands[name], here, ctx)}


def _defaults(command: Any, here: dict[str, settings.Setting], ctx: Any) -> dict[str, Any]:
    """Parameter -> value, as a context wants it; of a group, one such for each of its commands."""
    if hasattr(command, "commands"):
        return {name: _defaults(part, here, ctx) for name, part in command.commands.items()}
    options = _options(command)
    return {
        options[name].name: _value(options[name], setting, ctx)
        for name, setting in here.items()
        if name in options
    }


def _value(parameter: Any, setting: settings.Setting, ctx: Any) -> Any:
    """The text of a setting, once it is known that the option takes it. Raises OptionError."""
    value: Any = setting.value
    if parameter.multiple:
        value = list(map(str, value)) if isinstance(value, list) else str(value).split(",")
    else:
        value = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        parameter.type_cast_value(ctx, value)
    except typer.BadParameter as error:
        name = parameter.name.replace("_", "-")
        raise OptionError(f"{setting.origin}: {name}: {error.message}") from error
    return value


@app.command(cls=Command)
def show(
    ctx: typer.Context,
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Command whose options to show.")
    ] = "transcribe",
) -> None:
    """Print each option of a command, its value, and where that comes from.

    It is the default, or set in the configuration file or in an environment variable.

    For example:

      whisper-npu config show transcribe
    """
    root: Any = ctx.find_root().command
    if command not in root.commands:
        raise OptionError(f"no command {command!r}: one of {', '.join(root.commands)}")
    found = settings.of_command(settings.read(), command)
    typer.echo(f"# {settings.config_file()}", err=True)
    for name, parameter in _options(root.commands[command]).items():
        setting = found.get(name, settings.Setting(parameter.default, "default"))
        typer.echo(f"{_toml(name, setting.value)}  # {setting.origin}")


def _toml(name: str, value: Any) -> str:
    """A setting as the configuration file has it."""
    if value is None:
        return f"# {name} is not set"
    if isinstance(value, (list, tuple)):
        return f"{name} = {dumps(list(value))}"
    return f"{name} = {dumps(value, default=str, ensure_ascii=False)}"


@app.command(cls=Command)
def path() -> None:
    """Print where the configuration file is read from.

    For example:

      whisper-npu config path
    """
    typer.echo(settings.config_file())
