"""Many recordings: which are meant, where results go, and who works."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from whisper_npu.errors import OptionError
from whisper_npu.messages import printable
from whisper_npu.options.option import MANY, OUTPUT, check, n_bytes, option
from whisper_npu.options.subtitles import SubtitleOptions

# fmt: off
EXTENSIONS = frozenset(  # what is looked for in folders; a file that is named is always tried
    ".3gp .aac .ac3 .aif .aifc .aiff .amr .ape .au .avi .caf .flac .flv .m4a .m4b .m4v .mka .mkv "
    ".mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ra .rf64 .rm .snd .spx .ts .tta "
    ".voc .w64 .wav .wave .webm .wma .wmv .wv".split()
)
# fmt: on
FORMATS = ("txt", "srt", "vtt", "tsv", "json", "csv", "lrc", "html")


def formats(text: str) -> tuple[str, ...]:
    """Names from "srt,vtt" or "all"."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    return FORMATS if names == ("all",) else names


def folder(text: str) -> Path | None:
    """Where files go; "-" is standard output."""
    return None if text == "-" else Path(text)


def require_plain(name: str | None) -> None:
    """Raise OptionError unless an output's name stays in its folder."""
    if name is not None and (name in ("", ".", "..") or Path(name).name != name):
        raise OptionError(
            f"output_name: {name!r} is not a plain file name; --output-dir takes the folder",
            "output_name",
        )


def output_format_option() -> tuple[str, ...]:
    """What files to write, of a batch and of what is listened to."""
    return option(
        ("txt",),
        f"Formats to write: {', '.join(FORMATS)}, several with commas between them, or all.",
        OUTPUT,
        short="-f",
        read=formats,
        choices=FORMATS,
        metavar="FORMAT,...",
    )


@dataclass(frozen=True)
class InputOptions:
    """Which files of a folder are meant."""

    recursive: bool = option(
        False, "Look for recordings in the folders inside a folder as well.", MANY, short="-r"
    )
    include: tuple[str, ...] = option(
        (),
        "In folders, take only files with a name or path like this, such as '*.mp3'. May be "
        "given several times.",
        MANY,
        metavar="PATTERN",
    )
    exclude: tuple[str, ...] = option(
        (),
        "In folders, leave out files with a name or path like this. May be given several times.",
        MANY,
        metavar="PATTERN",
    )

    def accepts(self, relative: str) -> bool:
        """Whether a file of a folder is meant."""
        name = relative.rsplit("/", 1)[-1]

        def matches(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(part, one) for one in patterns for part in (name, relative))

        if matches(self.exclude):
            return False
        return matches(self.include) if self.include else Path(name).suffix.lower() in EXTENSIONS


@dataclass(frozen=True)
class BatchOptions:
    """What a batch writes, and what it skips. Raises OptionError."""

    output_dir: Path | None = option(
        None,
        "Folder in which a file is written for each recording. Without this option, or with -, "
        "the text goes to standard output.",
        OUTPUT,
        short="-o",
        read=folder,
        metavar="FOLDER",
    )
    output_format: tuple[str, ...] = output_format_option()
    skip_existing: bool = option(
        False,
        "Skip a recording when its files exist, whatever model and options they were made with.",
        MANY,
    )
    resume: bool = option(
        True,
        "Skip recordings that an earlier run has finished, and continue the one that was "
        "interrupted. This needs --output-dir.",
        MANY,
    )
    retry_failed: bool = option(False, "Try recordings again that failed in an earlier run.", MANY)
    subtitles: SubtitleOptions = SubtitleOptions()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        check(self)
        folder = self.output_dir
        if folder and folder.suffix.lower()[1:] in FORMATS and not folder.is_dir():
            raise OptionError(
                f"output_dir takes a folder, and {printable(folder)} looks like a file: use "
                f"--output-dir {printable(folder.parent)} --output-name {printable(folder.stem)} "
                f"--output-format {folder.suffix.lower()[1:]}",
                "output_dir",
            )

    def files(self, output: str) -> list[Path]:
        """Where the outputs of a recording go; none without a folder."""
        if self.output_dir is None:
            return []
        return [self.output_dir / f"{output}.{name}" for name in self.output_format]


@dataclass(frozen=True)
class RunOptions:
    """Who works on a batch, and for how long. Raises OptionError."""

    output_name: str | None = option(
        None,
        "Name of the files to write, without extension, for a single recording.",
        OUTPUT,
        metavar="NAME",
    )
    watch: bool = option(
        False, "Keep looking for new recordings in the folders, until Ctrl-C.", MANY
    )
    workers: int | None = option(
        None,
        "Number of recordings to transcribe at the same time. Without this option one; with "
        "--output-dir on an NPU, one for each of its cores.",
        MANY,
        least=1,
    )
    batch_size: int | None = option(
        None,
        "Number of recordings that one device decodes together, which is faster and changes no "
        "text. Without this option one; with --output-dir as many as the memory allows, up to 8.",
        MANY,
        least=1,
    )
    max_memory: int | None = option(
        None,
        "While the program uses more memory than this, such as 800M, it prepares no recording "
        "in advance, and transcribes fewer at the same time, down to one.",
        MANY,
        read=n_bytes,
        metavar="SIZE",
    )
    cluster: str | None = option(
        None,
        "Let the machines of a Dask cluster do the work; this is the address of its scheduler, "
        "such as tcp://host:8786.",
        MANY,
        metavar="ADDRESS",
    )
    shared_paths: bool = option(
        False,
        "With --cluster: all machines find the recordings at the same paths, so that only paths "
        "are sent.",
        MANY,
    )
    report: Path | None = option(
        None,
        "Write what became of each recording to this file: as a web page if its name ends in "
        ".html, otherwise as JSON.",
        MANY,
        metavar="FILE",
    )
    plan: bool = option(False, "Print which layers run on the NPU, and how long they take.", OUTPUT)

    def __post_init__(self) -> None:
        check(self)
        require_plain(self.output_name)


@dataclass(frozen=True)
class ShowOptions:
    """What is told besides the transcripts."""

    json: bool = option(
        False,
        "Print everything that happens on standard output, as one JSON object a line.",
        OUTPUT,
    )
    timings: bool = option(False, "At the end, print how long each stage took.", OUTPUT)
