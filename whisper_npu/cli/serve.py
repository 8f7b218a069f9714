"""whisper-npu serve."""

from __future__ import annotations

from typing import Annotated

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import Offline, say
from whisper_npu.options import (  # noqa: TC001  typer reads annotations when it runs
    DeviceOptions,
    TranscribeOptions,
)
from whisper_npu.options.option import MODEL
from whisper_npu.options.serving import ServeOptions  # noqa: TC001  the same

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="Model that clients may ask for: a name such as base, or the path of a folder or a "
        ".bin file. May be given several times; the first is the default. Without this option, "
        "base.",
    ),
]


@taking_options
def serve(
    *,
    model: Models = None,
    serving: ServeOptions,
    device: DeviceOptions,
    offline: Offline = False,
    options: TranscribeOptions,
) -> None:
    """Transcribe for other programs: OpenAI's clients, Home Assistant, Bazarr, a browser.

    Needs pip install 'whisper-npu[serve]'. Ctrl-C ends it when what is in work is finished. Speech
    options, such as --language or --beam-size, hold for requests that do not say otherwise.

    For example:

      whisper-npu serve

      whisper-npu serve -m base -m tiny.en --host 0.0.0.0 --idle 600

      WHISPER_NPU_TOKEN=secret whisper-npu serve --host 0.0.0.0
    """
    from whisper_npu.serve import require_packages

    require_packages()
    from whisper_npu.serve.server import Server

    Server(model or [], device, options, serving, offline=offline, say=say).run()
