"""Options that several commands have, and where they talk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whisper_npu.options.option import MODEL, OUTPUT

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="Model to use: a name such as base, or the path of a folder or a .bin file; without "
        "this option, base.",
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: a name such as base, a repository of the hub as owner/name or "
        "owner/name@revision, or a folder.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline/--no-offline",
        rich_help_panel=MODEL,
        show_default=False,
        help="Never use the network.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUTPUT, help="Print the results as JSON."),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=OUTPUT,
        help="Write the results to this file, as a web page with charts.",
    ),
]


def say(line: str) -> None:
    """Talk goes to stderr: stdout is for results."""
    typer.echo(line, err=True)
