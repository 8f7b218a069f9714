"""Options that several commands have, and where they talk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whisper_npu.options.option import MODEL

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="Model to use: a name such as base, or a folder; without this option, base.",
    ),
]
Chip = Annotated[
    str | None, typer.Option(metavar="CHIP", help="Emulate the NPU of rk3588 or rk3566.")
]
Offline = Annotated[
    bool,
    typer.Option("--offline/--no-offline", rich_help_panel=MODEL, help="Never use the network."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Everything, as JSON on stdout.")]
ReportPage = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="Write a page with charts.")
]


def say(line: str) -> None:
    """Talk goes to stderr: stdout is for results."""
    typer.echo(line, err=True)
