"""Words typed by a person -> calls. One file per command, no logic, nothing heavy imported.

`main` is the one place that catches our errors: one line on stderr and the error's exit code.
"""

from __future__ import annotations

import gc
import signal
import sys
from typing import Any

import typer

from whisper_npu.cli import (
    bench,
    cache,
    compare,
    config,
    doctor,
    listen,
    models,
    serve,
    streams,
    transcribe,
)
from whisper_npu.cli.compile import compile_model
from whisper_npu.cli.help import Command, typer_app
from whisper_npu.cli.options import say
from whisper_npu.errors import OptionError, WhisperNpuError
from whisper_npu.messages import printable

UsageError: Any = typer.BadParameter.__base__  # typer does not export it

app = typer_app(
    name="whisper-npu",
    help="Speech to text with Whisper, on the NPU of Rockchip boards and on any CPU.",
    no_args_is_help=True,
)
app.command("transcribe", cls=Command)(transcribe.transcribe)
app.command("listen", cls=Command)(listen.listen)
app.command("serve", cls=Command)(serve.serve)
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
    streams.prepare()
    code: int | None = 0
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        message, where = error.format_message(), error.ctx.command_path if error.ctx else ""
        if not message.startswith("Usage: "):  # the help of a group of commands
            message = f"whisper-npu: {printable(message)} (see {where or 'whisper-npu'} --help)"
        say(message)
        code = OptionError.exit_code
    except typer.Abort:  # Ctrl-C
        code = 128 + signal.SIGINT
    except WhisperNpuError as error:
        if str(error):
            say(f"whisper-npu: {printable(str(error))}")
        code = error.exit_code
    except OSError as error:  # no files left to open, or no current folder any more
        say(f"whisper-npu: the system refuses: {printable(str(error))}")
        code = WhisperNpuError.exit_code
    except MemoryError:
        say("whisper-npu: the memory is used up: end other programs, or use a smaller model")
        code = WhisperNpuError.exit_code
    finally:
        gc.freeze()  # the end of the process frees everything, with nothing left to look through
    sys.exit(code)
