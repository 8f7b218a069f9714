"""whisper-npu compile."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads annotations when it runs
from typing import Annotated

import typer

from whisper_npu.cli.options import Offline, say


def compile_model(  # noqa: PLR0913  one parameter for each option
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    *,
    target: Annotated[
        list[str], typer.Option(help="rk3588, rk3576, rk3566 or rk3562; repeatable.")
    ],
    precision: Annotated[str, typer.Option(help="fp16, or int8 with --calibrate.")] = "fp16",
    calibrate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Recordings from which int8 learns.")
    ] = None,
    window: Annotated[
        str, typer.Option(metavar="SECONDS", help="Lengths of the window: 30, or 30,20,10.")
    ] = "30",
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Recordings to verify on; by default the calibration's, if any."
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Verify every layer as well.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Build what is there already.")] = False,
    toolchain_python: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="A Python that has rknn-toolkit2; by default our own."),
    ] = None,
    offline: Offline = False,
) -> None:
    """Compile a model's encoder with Rockchip's toolchain, and verify it in its simulator.

    The toolchain gets an environment of its own on first use (700 MB). A graph that differs from
    our encoder is refused. The results are folders; copy those to the cache of a board.

    For example:

      whisper-npu compile base --target rk3588 --target rk3566

      whisper-npu compile base --target rk3588 --precision int8 --calibrate recordings/
    """
    from whisper_npu import find_model
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.graphs.compilation import CompileOptions, compile_graphs
    from whisper_npu.graphs.recipe import recipes

    wanted = recipes(target, precision, window)
    checkpoint = Checkpoint(find_model(model, offline=offline, say=say))
    options = CompileOptions(calibrate, audio, toolchain_python, layers=layers, again=again)
    for folder in compile_graphs(checkpoint, wanted, options, say):
        typer.echo(folder)
