"""Words typed by a person -> calls. One file per command, no logic, nothing heavy imported.

`main` is the one place that catches our errors: one line on stderr and the error's exit code.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import typer

from whisper_npu.cli import bench, cache, compare, config, doctor, models, transcribe
from whisper_npu.cli.compile import compile_model
from whisper_npu.cli.help import Command, typer_app
from whisper_npu.errors import OptionError, WhisperNpuError

UsageError: Any = typer.BadParameter.__base__  # typer does not export it

app = typer_app(
    name="whisper-npu",
    help="Speech to text with Whisper, on the NPU of Rockchip boards and on any CPU.",
    no_args_is_help=True,
)
app.command("transcribe", cls=Command)(transcribe.transcribe)
app.command("bench", cls=Command)(bench.bench)
app.command("compile", cls=Command)(compile_model)
app.command("compare", cls=Command)(compare.compare)
app.command("doctor", cls=Command)(doctor.doctor)
app.add_typer(models.app)
app.add_typer(cache.app)
app.add_typer(config.app)


def _print_version(*, value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"whisper-npu {version('whisper-npu')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    *,
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version  # its callback has printed it
    if not ctx.resilient_parsing:  # completion must not stumble over a broken file
        config.install(ctx)


def main() -> None:
    """Run the command line."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "whisper-npu"
        typer.echo(f"whisper-npu: {error.format_message()} (see {where} --help)", err=True)
        sys.exit(OptionError.exit_code)
    except WhisperNpuError as error:
        typer.echo(f"whisper-npu: {error}", err=True)
        sys.exit(error.exit_code)
    finally:
        gc.freeze()  # the end of the process frees everything, with nothing left to look through
    sys.exit(code)
