"""whisper-npu transcribe."""

from __future__ import annotations

import dataclasses
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from whisper_npu.transcribe import Model, TranscribeOptions
    from whisper_npu.transcript import Transcript

MODEL, OUTPUT, SPEECH, SEARCH = "Model", "Output", "Speech", "Search"
FALLBACK, PROMPT, SUBTITLES = "Fallback and silence", "Prompts", "Word times and subtitles"


def option(name: str, panel: str, text: str, **more: Any) -> Any:
    """One option in its panel of --help."""
    return typer.Option(*name.split(), rich_help_panel=panel, help=text, **more)


def number_or_none(text: Any) -> float | None:
    """A number, or "none" to switch a threshold off."""
    return None if str(text).lower() == "none" else float(text)


def numbers(text: Any) -> Any:
    """Numbers between commas."""
    return text if isinstance(text, tuple) else tuple(float(part) for part in text.split(","))


def token_ids(text: Any) -> Any:
    """Token ids between commas."""
    return text if isinstance(text, tuple) else tuple(int(part) for part in text.split(",") if part)


def threshold(name: str, panel: str, text: str) -> Any:
    """A number that "none" switches off."""
    return option(name, panel, text, parser=number_or_none, metavar="NUMBER|none")


def transcribe(  # noqa: PLR0913  one parameter an option
    ctx: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(metavar="AUDIO...", help="Recordings; - is stdin.")
    ],
    *,
    model: Annotated[
        str | None,
        option("--model -m", MODEL, "Name or folder; by default the one that comes with us."),
    ] = None,
    device: Annotated[str, option("--device", MODEL, "auto, cpu or npu.")] = "auto",
    offline: Annotated[bool, option("--offline/--online", MODEL, "Never use the network.")] = False,
    output_dir: Annotated[
        str | None,
        option("--output-dir -o", OUTPUT, "Folder for the files; - or nothing: stdout."),
    ] = None,
    output_format: Annotated[
        str, option("--output-format -f", OUTPUT, "txt, srt, vtt, tsv, json, csv, lrc; or all.")
    ] = "txt",
    output_name: Annotated[
        str | None, option("--output-name", OUTPUT, "File name without extension, for one input.")
    ] = None,
    json: Annotated[
        bool, option("--json", OUTPUT, "What happens, as JSON lines on stdout.")
    ] = False,
    task: Annotated[
        str, option("--task", SPEECH, "transcribe, or translate into English.")
    ] = "transcribe",
    language: Annotated[
        str,
        option(
            "--language -l", SPEECH, "Code or English name; auto: heard once; auto-each: always."
        ),
    ] = "auto",
    clip_timestamps: Annotated[
        Any,
        option(
            "--clip-timestamps",
            SPEECH,
            "Parts to hear, in seconds.",
            parser=numbers,
            metavar="START,END,START,...",
        ),
    ] = "0",
    temperature: Annotated[float, option("--temperature", SEARCH, "0: the likeliest text.")] = 0.0,
    beam_size: Annotated[
        int | None, option("--beam-size", SEARCH, "Hypotheses at temperature 0; none: greedy.")
    ] = None,
    best_of: Annotated[
        int | None, option("--best-of", SEARCH, "Samples above temperature 0; none: 5.")
    ] = None,
    patience: Annotated[
        float | None, option("--patience", SEARCH, "Wait for this many times --beam-size.")
    ] = None,
    length_penalty: Annotated[
        float | None, option("--length-penalty", SEARCH, "From 0 to 1; none: mean over the tokens.")
    ] = None,
    suppress_tokens: Annotated[
        Any,
        option(
            "--suppress-tokens",
            SEARCH,
            "Never these; -1: what is not speech.",
            parser=token_ids,
            metavar="ID,ID,...",
        ),
    ] = "-1",
    suppress_blank: Annotated[
        bool, option("--suppress-blank", SEARCH, "Never begin with nothing.")
    ] = True,
    without_timestamps: Annotated[
        bool, option("--without-timestamps", SEARCH, "Text only, one segment a window.")
    ] = False,
    max_initial_timestamp: Annotated[
        Any, threshold("--max-initial-timestamp", SEARCH, "Seconds before the first word.")
    ] = 1.0,
    seed: Annotated[int, option("--seed", SEARCH, "Of sampling.")] = 0,
    temperature_increment_on_fallback: Annotated[
        Any,
        threshold("--temperature-increment-on-fallback", FALLBACK, "Added when a window fails."),
    ] = 0.2,
    compression_ratio_threshold: Annotated[
        Any, threshold("--compression-ratio-threshold", FALLBACK, "Above, a window has failed.")
    ] = 2.4,
    logprob_threshold: Annotated[
        Any, threshold("--logprob-threshold", FALLBACK, "Mean below, a window has failed.")
    ] = -1.0,
    no_speech_threshold: Annotated[
        Any, threshold("--no-speech-threshold", FALLBACK, "Above, a failed window is silence.")
    ] = 0.6,
    initial_prompt: Annotated[
        str | None, option("--initial-prompt", PROMPT, "Text said before the first window.")
    ] = None,
    carry_initial_prompt: Annotated[
        bool, option("--carry-initial-prompt", PROMPT, "Before every window.")
    ] = False,
    hotwords: Annotated[
        str | None, option("--hotwords", PROMPT, "Words to expect, before every window.")
    ] = None,
    prefix: Annotated[
        str | None, option("--prefix", PROMPT, "What the first window begins with.")
    ] = None,
    condition_on_previous_text: Annotated[
        bool, option("--condition-on-previous-text", PROMPT, "Each window knows the one before.")
    ] = True,
    highlight_words: Annotated[
        bool, option("--highlight-words", SUBTITLES, "Underline each word as it is spoken.")
    ] = False,
    max_line_width: Annotated[
        int | None, option("--max-line-width", SUBTITLES, "Characters in a line.")
    ] = None,
    max_line_count: Annotated[
        int | None, option("--max-line-count", SUBTITLES, "Lines at a time.")
    ] = None,
    max_words_per_line: Annotated[
        int | None, option("--max-words-per-line", SUBTITLES, "Words in a line.")
    ] = None,
) -> None:
    """Turn speech into text.

    For example:

      whisper-npu transcribe talk.mp3

      whisper-npu transcribe talk.mp3 -m base -f srt,json -o out

      arecord -f S16_LE -r 16000 -d 10 | whisper-npu transcribe -
    """
    from whisper_npu import load_model
    from whisper_npu.transcribe import TranscribeOptions, fallback_temperatures
    from whisper_npu.writers import FORMATS, SubtitleOptions, formats, output_stems, write_all

    temperatures = fallback_temperatures(temperature, temperature_increment_on_fallback)
    options = TranscribeOptions(temperatures=temperatures, **_fields(TranscribeOptions, ctx.params))
    subtitles = SubtitleOptions(**_fields(SubtitleOptions, ctx.params))
    names = formats(output_format)
    stems = output_stems(inputs)
    if output_name is not None:
        stems = [output_name]
    folder = None if output_dir in (None, "-") else Path(output_dir)
    _check(inputs, names, folder, output_name, json=json)
    with load_model(model, device=device, offline=offline, say=_say) as opened:
        for source, stem in zip(inputs, stems, strict=True):
            streamed = None if folder else names[0]
            transcript = _one(opened, source, options, streamed, json=json)
            if folder:
                for path in write_all(transcript, folder, stem, names, subtitles):
                    _say(str(path))
            elif not json and streamed != "txt":
                sys.stdout.write(FORMATS[names[0]](transcript, subtitles).rstrip("\n") + "\n")


def _check(
    inputs: list[str], names: tuple[str, ...], folder: Path | None, name: str | None, *, json: bool
) -> None:
    """Where results go. Raises OptionError."""
    from whisper_npu.errors import OptionError

    if name is not None and len(inputs) > 1:
        raise OptionError("--output-name needs a single recording")
    if folder is None and not json and len(names) > 1:
        raise OptionError("several formats need a folder: -o DIR")
    if folder is None and not json and names != ("txt",) and len(inputs) > 1:
        raise OptionError(f"{names[0]} of several recordings needs a folder: -o DIR")


def _one(
    model: Model, source: str, options: TranscribeOptions, show: str | None, *, json: bool
) -> Transcript:
    """Transcribe a recording, showing what is found as it is found."""
    from tqdm import tqdm

    from whisper_npu.transcribe import WindowDone, record
    from whisper_npu.transcript import Segment
    from whisper_npu.writers import line

    transcription = model.open(source, options)
    segments = []
    total = transcription.duration
    with tqdm(total=round(total, 2), unit="s", disable=None, file=sys.stderr) as progress:
        for event in transcription:
            if isinstance(event, Segment):
                segments.append(event)
            if json:
                typer.echo(dumps({"input": source, **record(event)}))
            elif isinstance(event, Segment) and show == "txt" and event.text.strip():
                typer.echo(line(event.text))
            if isinstance(event, WindowDone):
                progress.update(round(min(event.seconds, total) - progress.n, 2))
    return transcription.transcript(segments)


def _fields(options: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Parameters are called as the fields they set."""
    names = {field.name for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if name in names}


def _say(line: str) -> None:
    typer.echo(line, err=True)
