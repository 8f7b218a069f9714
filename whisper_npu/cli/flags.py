"""Options -> flags: what typer needs to know of a dataclass of options, and back."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from whisper_npu.errors import OptionError
from whisper_npu.options.option import LIBRARY, declared, number, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.options.option import Option
    from whisper_npu.settings import Setting

_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (whole_number, "NUMBER"),
    float: (number, "NUMBER"),
    str: (str, "TEXT"),
    Path: (Path, "PATH"),
}
SETTINGS = "whisper_npu.settings"  # where a context keeps what is set


def taking_options(function: Callable[..., None]) -> Callable[..., None]:
    """The command that typer sees: with a flag for each option of the dataclasses it takes.

    An OptionError names flags, and where they were set if not on the command line.
    """
    hints = get_type_hints(function, include_extras=True)
    taken = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    ]
    for name, parameter in inspect.signature(function).parameters.items():
        if name in taken:
            parameters += flags(taken[name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=kind))

    def command(ctx: typer.Context, **typed: Any) -> None:
        try:
            chosen = {name: _built(options, typed) for name, options in taken.items()}
            function(**typed, **chosen)
        except OptionError as error:
            raise OptionError(_as_typed(error, ctx)) from error

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def flags(options: Any) -> list[inspect.Parameter]:
    """A parameter for each option of a dataclass."""
    hints, known = get_type_hints(options), declared(options)
    defaults = {one.name: one.default for one in fields(options)}
    return [_flag(name, hints[name], defaults[name], one) for name, one in known.items()]


def _flag(name: str, hint: Any, default: Any, one: Option) -> inspect.Parameter:
    if one.typed is not LIBRARY:
        default = one.typed
    flag = "--" + name.replace("_", "-")
    more: dict[str, Any] = {"metavar": one.metavar or None, "rich_help_panel": one.group}
    annotation: Any = str
    several = hint == tuple[str, ...] and one.read is None
    if hint is bool:
        annotation, flag = bool, f"{flag}/--no-{flag[2:]}"
    elif several:
        annotation, default = list[str], list(default)
    else:
        kind = next((kind for kind in (hint, *get_args(hint)) if kind in _READERS), str)
        read, metavar = _READERS[kind]
        more["parser"] = _parser(one, one.read or read)
        more["metavar"] = one.metavar or "|".join(one.choices) or metavar
    text = one.text
    if shown := ("on" if default else "") if hint is bool else _shown(default):
        text += f" (default: {shown})"
    names = [flag, one.short] if one.short else [flag]
    info = typer.Option(*names, help=text, show_default=False, **more)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, info])


def _parser(one: Option, read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Text -> value, checked; a default passes as it is."""

    def parse(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        try:
            value = read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        if value is not None and (wrong := one.wrong(value)):
            raise typer.BadParameter(wrong)
        return value

    return parse


def _shown(value: Any) -> str:
    """A default, as it would be typed."""
    if value is None:
        return ""
    if isinstance(value, (tuple, list)):
        return ",".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _built(options: Any, typed: dict[str, Any]) -> Any:
    """The dataclass from what was typed, which loses its values."""
    values = {name: typed.pop(name) for name in declared(options)}
    return options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _as_typed(error: OptionError, ctx: typer.Context) -> str:
    """The message with flags for names, and with where those were set that nobody typed."""
    message = str(error)
    found: dict[str, Setting] = ctx.meta.get(SETTINGS, {})
    origins = []
    for name in error.options:
        flag = "--" + name.replace("_", "-")
        message = re.sub(rf"(?<![\w-]){name}(?!\w)", flag, message)
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "DEFAULT_MAP":
            origins.append(f"{flag} is set in {found[name.replace('_', '-')].origin}")
    return "; ".join([message, *origins])
