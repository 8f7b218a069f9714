"""whisper-npu listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import AsJson, Model, Offline, say
from whisper_npu.errors import OptionError
from whisper_npu.options import (  # noqa: TC001  typer reads annotations when it runs
    DeviceOptions,
    SubtitleOptions,
)
from whisper_npu.options.live import ListenOptions, StreamOptions  # noqa: TC001  the same

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from whisper_npu.live.events import LiveEvent
    from whisper_npu.live.inputs import Sound
    from whisper_npu.live.listening import Kept
    from whisper_npu.live.stream import SpeechStream


@taking_options
def listen(  # noqa: PLR0913  a parameter for each kind of option
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[-]",
            help="- is standard input, with raw samples: signed, of 16 bits, one channel. Without "
            "it, a microphone is heard.",
        ),
    ] = None,
    *,
    listening: ListenOptions,
    model: Model = None,
    device: DeviceOptions,
    offline: Offline = False,
    options: StreamOptions,
    json: AsJson = False,
    subtitles: SubtitleOptions,
) -> None:
    """Write what is said while it is spoken, until Ctrl-C.

    Needs pip install 'whisper-npu[listen]'. On a terminal, words that may yet change are dim; in a
    pipe or a file there is a line for each sentence.

    For example:

      whisper-npu listen

      whisper-npu listen -o notes -f txt,srt

      arecord -t raw -f S16_LE -r 16000 | whisper-npu listen - --latency low

      whisper-npu listen --simulate talk.mp3 --json
    """
    if listening.list_inputs:
        from whisper_npu.live.inputs import names

        for name in names():
            typer.echo(name)
        return
    if source not in (None, "-"):
        raise OptionError(f"{source} is not -: a recording is heard with simulate", "simulate")
    if source and (listening.simulate or listening.input):
        raise OptionError("standard input excludes simulate and input", "simulate", "input")
    from whisper_npu import load_model
    from whisper_npu.live.listening import Kept

    with load_model(model, device=device, offline=offline, say=say) as opened:
        info = opened.device.info
        if info.origin != "measured":
            say(f"whisper-npu: {info.name}")
        stream = opened.stream(options)
        kept = Kept(listening, subtitles, info, say=say)
        _listen(stream, lambda stopped: _sound(source, listening, stopped), kept, json=json)


def _listen(
    stream: SpeechStream,
    open_sound: Callable[[Callable[[], bool]], AbstractContextManager[Sound]],
    kept: Kept,
    *,
    json: bool,
) -> None:
    """Tell and keep what is said until the sound ends, or a signal comes."""
    from whisper_npu.batch.interrupts import finishing
    from whisper_npu.live.listening import words_of

    stopped: list[bool] = []
    tell, close = _teller(json=json)
    with finishing(lambda: stopped.append(True), say, "what was heard is told"):
        try:
            with open_sound(lambda: bool(stopped)) as sound:
                for event in words_of(stream, sound):
                    tell(event)
                    kept.hear(event, stream)
        finally:
            close()
            for path in kept.write(stream):
                say(str(path))


def _sound(
    source: str | None, options: ListenOptions, is_stopped: Callable[[], bool]
) -> AbstractContextManager[Sound]:
    from whisper_npu.live import inputs

    if options.simulate:
        return inputs.played(options.simulate, options.speed, is_stopped)
    if source:
        return inputs.raw(inputs.standard_input(), options.rate, is_stopped)
    return inputs.microphone(options.input, is_stopped)


def _teller(*, json: bool) -> tuple[Callable[[LiveEvent], None], Callable[[], None]]:
    """Who tells events, and how that ends."""
    if json:
        from json import dumps

        from whisper_npu.live.events import live_record

        def tell(event: LiveEvent) -> None:
            print(dumps(live_record(event), allow_nan=False), flush=True)  # noqa: T201

        return tell, lambda: None
    from whisper_npu.live.events import show
    from whisper_npu.terminal import Captions

    captions = Captions()
    return lambda event: show(event, captions), captions.close
