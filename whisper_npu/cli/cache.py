"""whisper-npu cache: weights in the order a chip wants them, made before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer

from whisper_npu.cli.help import Command, typer_app
from whisper_npu.cli.options import ModelName, Offline, say

app = typer_app(name="cache", help="Prepare the weights of a model for an NPU.")


@app.callback()
def _group() -> None:
    """Keep `build` a command of its own."""


@app.command(cls=Command)
def build(
    model: ModelName,
    *,
    soc: Annotated[
        str,
        typer.Option(metavar="CHIP", help="Chip to prepare for: rk3588, rk3576, rk3566 or rk3562."),
    ],
    npu_precision: Annotated[
        str, typer.Option(metavar="fp16|int8", help="Precision of the weights on the NPU.")
    ] = "fp16",
    offline: Offline = False,
) -> None:
    """Convert the weights of a model for an NPU, so that it opens quickly there.

    This can be done on any machine; copy the cache to the board afterwards.

    For example:

      whisper-npu cache build base --soc rk3588
    """
    from whisper_npu import sources
    from whisper_npu.devices.npu.weights import build as convert

    checkpoint = sources.open_checkpoint(model, offline=offline, say=say)
    n_bytes = convert(checkpoint, soc, npu_precision)
    say(f"{checkpoint.name} for {soc}, {npu_precision}: {n_bytes / 1e6:.0f} MB are ready")
