"""The command line and the library are two documents of the same options."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from whisper_npu import options
from whisper_npu.cli import app
from whisper_npu.cli.flags import flags
from whisper_npu.errors import OptionError
from whisper_npu.options import TranscribeOptions, speech
from whisper_npu.options.batch import FORMATS
from whisper_npu.options.compiling import CompileOptions
from whisper_npu.options.diagnosis import DoctorOptions
from whisper_npu.options.live import ListenOptions, StreamOptions
from whisper_npu.options.measuring import BenchOptions, CompareOptions
from whisper_npu.options.option import LIBRARY, declared, n_bytes
from whisper_npu.options.serving import ServeOptions
from whisper_npu.writers import FORMATS as WRITERS

if TYPE_CHECKING:
    from command_line import CommandLine

ALL = [getattr(options, name) for name in options.__all__]
OTHERS = {
    "bench": BenchOptions,
    "compare": CompareOptions,
    "compile": CompileOptions,
    "doctor": DoctorOptions,
    "listen": ListenOptions,
    "serve": ServeOptions,
}


@pytest.mark.parametrize("kind", [*ALL, *OTHERS.values(), StreamOptions])
def test_the_command_line_has_the_defaults_of_the_library(kind: Any) -> None:
    typed = {flag.name: flag.default for flag in flags(kind)}
    for field in fields(kind):
        if field.name not in declared(kind):
            continue
        default = typed[field.name]
        default = tuple(default) if isinstance(default, list) else default
        option = declared(kind)[field.name]
        assert default == (field.default if option.typed is LIBRARY else option.typed), field.name


def test_every_option_is_a_flag_of_its_command() -> None:
    command: Any = typer.main.get_command(app)
    names = {parameter.name for parameter in command.commands["transcribe"].params}
    assert {name for kind in ALL for name in declared(kind)} <= names
    for name, kind in [*OTHERS.items(), ("listen", StreamOptions)]:
        assert set(declared(kind)) <= {
            parameter.name for parameter in command.commands[name].params
        }


def test_what_differs_from_the_library_is_known() -> None:
    """Five beams, as the commands of others have it; the library hears all, as openai/whisper's."""
    different = {
        name: one.typed
        for kind in ALL
        for name, one in declared(kind).items()
        if one.typed is not LIBRARY
    }
    assert different == {"beam_size": 5, "skip_silence": True}


def test_the_formats_are_those_that_are_written() -> None:
    assert tuple(WRITERS) == FORMATS


def test_defaults_are_hashable_and_frozen() -> None:
    for kind in ALL:
        assert hash(kind()) == hash(kind())
        assert inspect.signature(kind).parameters.keys() == {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--beam-size", "x"], "'x' is not a whole number"),
        (["--beam-size", "0"], "0 is less than 1"),
        (["--temperature", "warm"], "'warm' is not a number"),
        (["--temperature", "0,-1"], "-1 is less than 0"),
        (["--temperature", "nan"], "nan is not a number that can be used"),
        (["--temperature", "0.4,0.2"], "it must be one number, or several that rise"),
        (["--temperature-increment-on-fallback", "much"], "neither a number nor none"),
        (["--temperature-increment-on-fallback", "0"], "is not above 0"),
        (["--suppress-tokens", "1,x"], "'x' is not a whole number"),
        (["--clip-timestamps", "1;2"], "'1;2' is not a number"),
        (["--clip-timestamps", "3,2"], "it must be one number, or several that rise"),
        (["--length-penalty", "2"], "2 is more than 1"),
        (["--device", "gpu"], "'gpu' is not one of auto, cpu, npu"),
        (["--task", "sing"], "'sing' is not one of transcribe, translate"),
        (["-f", "txt,doc"], "'doc' is not one of txt, srt"),
        (["--max-memory", "lots"], "'lots' is not a size such as 800M"),
        (["--workers", "0"], "0 is less than 1"),
        (["--patience", "2", "--beam-size", "1"], "--patience needs a --beam-size of 2 or more"),
        (["--max-line-count", "2"], "--max-line-count needs --max-line-width"),
    ],
)
def test_a_wrong_value_is_named(command_line: CommandLine, arguments: list[str], told: str) -> None:
    done = command_line("transcribe", "a.wav", *arguments)
    assert (done.code, done.out) == (2, "")
    assert told in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_sizes() -> None:
    assert [n_bytes(text) for text in ("800M", "2gb", "1.5K", "12")] == [
        800_000_000,
        2_000_000_000,
        1500,
        12,
    ]


def test_without_the_detector_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match="pip install"):
        TranscribeOptions(vad=True)
