"""whisper-npu transcribe."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import whisper_npu
from whisper_npu.cli.options import say
from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from whisper_npu.batch import Batch, BatchOptions
    from whisper_npu.batch.recordings import Recording

MODEL, OUTPUT, BATCH, SPEECH, SEARCH = "Model", "Output", "Many recordings", "Speech", "Search"
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
        list[str],
        typer.Argument(metavar="AUDIO...", help="Recordings, folders, patterns; - is stdin."),
    ],
    *,
    model: Annotated[
        str | None,
        option("--model -m", MODEL, "Name or folder; by default the demo model."),
    ] = None,
    device: Annotated[str, option("--device", MODEL, "auto, cpu or npu.")] = "auto",
    precision: Annotated[
        str, option("--precision", MODEL, "Of the CPU: f32, f16, int8; auto: what is fast here.")
    ] = "auto",
    threads: Annotated[
        int | None, option("--threads", MODEL, "Of the CPU; none: one for each big core.")
    ] = None,
    npu_precision: Annotated[
        str, option("--npu-precision", MODEL, "fp16, or int8: faster, less exact; auto: fp16.")
    ] = "auto",
    npu_path: Annotated[
        str, option("--npu-path", MODEL, "layers, graph (whisper-npu compile), or auto: faster.")
    ] = "auto",
    npu_cores: Annotated[int, option("--npu-cores", MODEL, "NPU cores that run a graph.")] = 1,
    short_windows: Annotated[
        bool, option("--short-windows", MODEL, "Graphs of 10 and 20 s for less sound: less exact.")
    ] = False,
    emulate: Annotated[
        str | None,
        option("--emulate", MODEL, "Run --device npu on an emulated chip: rk3588 or rk3566."),
    ] = None,
    rknnrt: Annotated[
        str | None, option("--rknnrt", MODEL, "The NPU's library, librknnrt.so; none: searched.")
    ] = None,
    plan: Annotated[
        bool, option("--plan", MODEL, "Say which layers run on the NPU, and how long they take.")
    ] = False,
    offline: Annotated[bool, option("--offline/--online", MODEL, "Never use the network.")] = False,
    output_dir: Annotated[
        str | None,
        option("--output-dir -o", OUTPUT, "Folder for the files; - or nothing: stdout."),
    ] = None,
    output_format: Annotated[
        str,
        option("--output-format -f", OUTPUT, "txt srt vtt tsv json csv lrc html, or all."),
    ] = "txt",
    output_name: Annotated[
        str | None, option("--output-name", OUTPUT, "File name without extension, for one input.")
    ] = None,
    json: Annotated[
        bool, option("--json", OUTPUT, "What happens, as JSON lines on stdout.")
    ] = False,
    recursive: Annotated[
        bool, option("--recursive/--flat -r", BATCH, "Look into folders of folders.")
    ] = False,
    include: Annotated[
        list[str] | None,
        option("--include", BATCH, "Only names or paths like this; again for more."),
    ] = None,
    exclude: Annotated[
        list[str] | None, option("--exclude", BATCH, "No names or paths like this; again for more.")
    ] = None,
    skip_existing: Annotated[
        bool, option("--skip-existing", BATCH, "Output files are enough, whatever made them.")
    ] = False,
    resume: Annotated[
        bool, option("--resume/--no-resume", BATCH, "Keep what is done, go on in the middle.")
    ] = True,
    retry_failed: Annotated[
        bool, option("--retry-failed", BATCH, "Try again what failed before.")
    ] = False,
    watch: Annotated[
        bool, option("--watch", BATCH, "Wait for more recordings, until Ctrl-C.")
    ] = False,
    workers: Annotated[
        int | None,
        option("--workers", BATCH, "Recordings at a time; none: 1, with -o one an NPU core."),
    ] = None,
    max_memory: Annotated[
        str | None, option("--max-memory", BATCH, "Such as 800M; above, prepare nothing ahead.")
    ] = None,
    cluster: Annotated[
        str | None, option("--cluster", BATCH, "A Dask scheduler: tcp://host:8786.")
    ] = None,
    shared_paths: Annotated[
        bool, option("--shared-paths", BATCH, "Boards find the inputs themselves: send no content.")
    ] = False,
    timings: Annotated[
        bool, option("--timings", OUTPUT, "Say where the time went, on stderr.")
    ] = False,
    report: Annotated[
        Path | None, option("--report", BATCH, "What became of each recording, as JSON or .html.")
    ] = None,
    task: Annotated[
        str, option("--task", SPEECH, "transcribe, or translate into English.")
    ] = "transcribe",
    language: Annotated[
        str,
        option(
            "--language -l", SPEECH, "Code or English name; auto: heard once; auto-each: always."
        ),
    ] = "auto",
    vad: Annotated[
        bool, option("--vad/--no-vad", SPEECH, "Hear nothing but speech (the extra vad).")
    ] = False,
    vad_threshold: Annotated[
        float, option("--vad-threshold", SPEECH, "Probability that is speech.")
    ] = 0.5,
    vad_min_speech_duration_ms: Annotated[
        float, option("--vad-min-speech-duration-ms", SPEECH, "Shorter is none.")
    ] = 0,
    vad_min_silence_duration_ms: Annotated[
        float, option("--vad-min-silence-duration-ms", SPEECH, "Shorter pauses are speech.")
    ] = 2000,
    vad_speech_pad_ms: Annotated[
        float, option("--vad-speech-pad-ms", SPEECH, "Kept around speech.")
    ] = 400,
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
    sample_len: Annotated[
        int | None, option("--sample-len", SEARCH, "Most tokens in a window; none: half the room.")
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
        bool, option("--suppress-blank/--no-suppress-blank", SEARCH, "Never begin with nothing.")
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
        bool,
        option(
            "--condition-on-previous-text/--no-condition-on-previous-text",
            PROMPT,
            "Each window knows the one before.",
        ),
    ] = True,
    word_timestamps: Annotated[
        bool, option("--word-timestamps", SUBTITLES, "When each word is spoken.")
    ] = False,
    prepend_punctuations: Annotated[
        str | None,
        option("--prepend-punctuations", SUBTITLES, "Marks that belong to the next word."),
    ] = None,
    append_punctuations: Annotated[
        str | None,
        option("--append-punctuations", SUBTITLES, "Marks that belong to the word before."),
    ] = None,
    hallucination_silence_threshold: Annotated[
        float | None,
        option(
            "--hallucination-silence-threshold",
            SUBTITLES,
            "Seconds of silence around what may be invented.",
        ),
    ] = None,
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

      whisper-npu transcribe recordings/ -r -o transcripts --report report.json

      arecord -f S16_LE -r 16000 -d 10 | whisper-npu transcribe -
    """
    _keep_blas_still()
    from whisper_npu.batch import Batch, BatchOptions
    from whisper_npu.batch import workers as crew
    from whisper_npu.batch.interrupts import finishing
    from whisper_npu.batch.recordings import Search, find
    from whisper_npu.batch.recordings import watch as watch_for
    from whisper_npu.cli.show import Show
    from whisper_npu.devices.device import DeviceOptions
    from whisper_npu.options import TranscribeOptions, fallback_temperatures
    from whisper_npu.writers import SubtitleOptions, formats

    temperatures = fallback_temperatures(temperature, temperature_increment_on_fallback)
    options = TranscribeOptions(temperatures=temperatures, **_chosen(ctx, TranscribeOptions))
    subtitles = SubtitleOptions(**_chosen(ctx, SubtitleOptions))
    if "html" in output_format:  # words follow the sound there
        options = dataclasses.replace(options, word_timestamps=True)
    if subtitles.needs_words and not options.word_timestamps:
        raise OptionError("subtitles laid out by words need --word-timestamps")
    folder = None if output_dir in (None, "-") else Path(output_dir)
    batch_options = BatchOptions(
        folder, formats(output_format), subtitles, **_chosen(ctx, BatchOptions)
    )
    search = Search(recursive, tuple(include or ()), tuple(exclude or ()))
    recordings = [] if watch else _named(find(inputs, search), output_name)
    form = _form(recordings, batch_options, json=json, watch=watch)
    devices = DeviceOptions(**_chosen(ctx, DeviceOptions))
    opening = crew.Opening(model, devices, options, offline=offline, say=say)
    if workers is None:  # on stdout, transcripts keep the order of the recordings
        workers = 1 if folder is None or cluster else opening.n_workers
    show = Show(recordings, form, subtitles, live=workers == 1 and not cluster)
    queue: Iterable[Recording] = recordings
    if watch:
        queue = watch_for(inputs, search, lambda: batch.is_stopping)
    prepare = None if cluster else opening.prepare
    batch = Batch(queue, batch_options, opening.describe(subtitles), prepare, show)
    try:
        with finishing(batch.stop, say, keeping=folder is not None):
            if cluster:
                from whisper_npu.batch import cluster as boards

                job = boards.Task(model, devices, options, opening.fingerprint, offline)
                boards.run(batch, cluster, job, shared=shared_paths)
            else:
                crew.run(batch, opening.engine, workers, _n_bytes(max_memory))
    finally:
        show.close()
        _conclude(batch, report, written=folder is not None)
        if timings:
            _tell_timings(batch)
    raise typer.Exit(batch.report.exit_code)


def _keep_blas_still() -> None:
    """One thread for BLAS where compiled kernels do the work: it spins, in their way.

    BLAS reads this when numpy is imported.
    """
    if any(file for place in whisper_npu.__path__ for file in Path(place).glob("kernels/_native*")):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _tell_timings(batch: Batch) -> None:
    from whisper_npu import terminal
    from whisper_npu.figures import Figure, origin

    device = batch.report.device
    seconds = {
        stage: Figure(spent, "s", origin(device)) for stage, spent in batch.report.stages.items()
    }
    terminal.console(stderr=True).print(terminal.stage_table([(device, seconds)]))


def _named(recordings: list[Recording], name: str | None) -> list[Recording]:
    if not recordings:
        raise OptionError("no recordings there: is --recursive or --include missing?")
    if name is None:
        return recordings
    if len(recordings) > 1:
        raise OptionError("--output-name needs a single recording")
    return [dataclasses.replace(recordings[0], output=name)]


def _form(recordings: list[Recording], options: BatchOptions, *, json: bool, watch: bool) -> str:
    """What stdout gets. Raises OptionError."""
    if json:
        return "jsonl"
    if options.folder is not None:
        return ""
    if watch:
        raise OptionError("--watch needs a folder: -o DIR")
    if len(options.formats) > 1:
        raise OptionError("several formats need a folder: -o DIR")
    if options.formats != ("txt",) and len(recordings) > 1:
        raise OptionError(f"{options.formats[0]} of several recordings needs a folder: -o DIR")
    return options.formats[0]


def _n_bytes(text: str | None) -> int | None:
    """800M, 2G, 1500000."""
    if text is None:
        return None
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = text.upper().removesuffix("B"), ""
    if number[-1:] in units:
        number, unit = number[:-1], number[-1:]
    try:
        return int(float(number) * units[unit])
    except (ValueError, OverflowError) as error:
        raise OptionError(f"--max-memory {text!r} is no size: 800M, 2G") from error


def _conclude(batch: Batch, report: Path | None, *, written: bool) -> None:
    """Say what became of the recordings; of a single one, what stdout does not tell."""
    from whisper_npu.batch.report import FAILED, INTERRUPTED
    from whisper_npu.cli.show import result_line

    results = batch.report.results
    if batch.report.total != 1:
        say(batch.report.table())
    elif results and results[0].status == FAILED:
        say(f"whisper-npu: {results[0].recording}: {results[0].reason}")
    elif results and written and results[0].status != INTERRUPTED:
        say(result_line(results[0]))
    if report is not None:
        from whisper_npu.pages.batch import page
        from whisper_npu.writers import write

        as_page = report.suffix.lower() in (".html", ".htm")
        write(report, page(batch.report) if as_page else batch.report.json())


def _chosen(ctx: typer.Context, options: type[Any]) -> dict[str, Any]:
    """What was chosen, of the fields that parameters are named after; the rest has its default."""
    names = {field.name for field in dataclasses.fields(options)} & ctx.params.keys()
    return {name: ctx.params[name] for name in names if _source(ctx, name) != "DEFAULT"}


def _source(ctx: typer.Context, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return source.name if source else "DEFAULT"
