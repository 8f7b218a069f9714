"""whisper-npu transcribe."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads annotations when it runs
from typing import Annotated

import typer


def transcribe(
    inputs: Annotated[list[Path], typer.Argument(metavar="AUDIO...", help="Recordings.")],
) -> None:
    """Turn speech into text."""
    raise NotImplementedError(inputs)
