"""whisper-npu compile."""

from __future__ import annotations

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import ModelName, Offline, say
from whisper_npu.options.compiling import CompileOptions  # noqa: TC001  read when it runs


@taking_options
def compile_model(model: ModelName, *, options: CompileOptions, offline: Offline = False) -> None:
    """Compile a model's encoder into a graph for an NPU with Rockchip's tools.

    The tools get an environment of their own on first use (700 MB). Each graph is verified in
    their simulator, and refused when it differs too much from the encoder that it was made of.
    Copy the folders that are printed into the cache of a board.

    For example:

      whisper-npu compile base --target rk3588 --target rk3566

      whisper-npu compile base --target rk3588 --npu-precision int8 --calibrate recordings/
    """
    from whisper_npu import sources
    from whisper_npu.compilation import compile_graphs
    from whisper_npu.graphs.recipe import recipes

    wanted = recipes(options)
    checkpoint = sources.open_checkpoint(model, offline=offline, say=say)
    for folder in compile_graphs(checkpoint, wanted, options, say):
        typer.echo(folder)
