"""How help looks: options in groups, readable at 40 columns as at 80."""

from __future__ import annotations

import re
import shutil
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

REMARK = re.compile(r"\s*\\?\[(default: .*|required)\]$")  # as typer writes it
HYPHEN = "\N{NON-BREAKING HYPHEN}"
WIDE = 60  # columns from which on an option and its text stand side by side


class Command(TyperCommand):
    """A command whose options stand in groups."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  as click calls it
        """Write what the command does, its examples as they are: they will be copied."""
        for paragraph in cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                if paragraph.startswith(" "):
                    formatter.write(f"{'':{formatter.current_indent}}{paragraph}\n")
                else:
                    formatter.write_text(paragraph.replace("-", HYPHEN))
        formatter.buffer = [part.replace(HYPHEN, "-") for part in formatter.buffer]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and each group of options."""
        _write_options(self, ctx, formatter)


class Group(TyperGroup):
    """Several commands, each with a whole sentence."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  as click calls it
        """Write the commands; typer's own list cuts sentences short."""
        rows = [(name, part.get_short_help_str(1000)) for name, part in self.commands.items()]
        _write(formatter, "Commands", rows)


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        ordinary = "Arguments" if parameter.param_type_name == "argument" else "Options"
        group = getattr(parameter, "rich_help_panel", None) or ordinary
        groups.setdefault(group, []).append((_term(parameter, row[0]), row[1]))
    for group, rows in groups.items():
        _write(formatter, group, rows)


def _write(formatter: Any, heading: str, rows: list[tuple[str, str]]) -> None:
    """A group; no line breaks at the hyphens of an option."""
    with formatter.section(heading):
        formatter.write_dl(
            [(term, REMARK.sub(r" (\1)", text).replace("-", HYPHEN)) for term, text in rows],
            col_max=26 if formatter.width >= WIDE else 1,
        )
    formatter.buffer = [part.replace(HYPHEN, "-") for part in formatter.buffer]


def _term(parameter: Any, term: str) -> str:
    """--[no-]resume for what is on by default; for what is off, --no-watch is not shown."""
    if not getattr(parameter, "secondary_opts", ()):
        return term
    first, *others = parameter.opts
    long = first.replace("--", "--[no-]", 1) if parameter.default else first
    return ", ".join([*others, long])


def typer_app(**more: Any) -> typer.Typer:
    """A group of commands with help as it looks here."""
    width = min(shutil.get_terminal_size().columns, 100)
    return typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "terminal_width": width},
        **more,
    )
