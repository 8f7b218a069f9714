"""whisper-npu config: what is set, and by whom. Also hands the settings to all commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from whisper_npu import settings

app = typer.Typer(name="config", help="Settings and where they come from.", no_args_is_help=True)


def _options(command: Any) -> dict[str, Any]:
    """Long option without dashes -> the parameter it sets."""
    return {
        name[2:]: parameter
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }


def install(ctx: typer.Context) -> None:
    """Make the settings the defaults of every command. Raises OptionError."""
    found = settings.read()
    commands: dict[str, Any] = ctx.command.commands  # type: ignore[attr-defined]  # it is a group
    options = {name: _options(command) for name, command in commands.items()}
    settings.require_known(found, {name: frozenset(these) for name, these in options.items()})
    ctx.default_map = {
        name: {
            options[name][option].name: setting.value
            for option, setting in settings.of_command(found, name).items()
            if option in options[name]
        }
        for name in commands
    }


@app.command()
def show(
    ctx: typer.Context,
    command: Annotated[str, typer.Argument(help="Whose options to show.")] = "transcribe",
) -> None:
    """Print each option, its value, and who set it: default, the file, or a variable.

    For example: whisper-npu config show transcribe
    """
    from whisper_npu.errors import OptionError

    root: Any = ctx.find_root().command
    if command not in root.commands:
        raise OptionError(f"no command {command!r}: one of {', '.join(root.commands)}")
    found = settings.of_command(settings.read(), command)
    typer.echo(f"# {settings.config_file()}", err=True)
    for name, parameter in _options(root.commands[command]).items():
        setting = found.get(name, settings.Setting(parameter.default, "default"))
        typer.echo(f"{name} = {setting.value!r}  # {setting.origin}")


@app.command()
def path() -> None:
    """Print where the configuration file is read from.

    For example: whisper-npu config path
    """
    typer.echo(settings.config_file())
