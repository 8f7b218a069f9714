"""config.toml < WHISPER_NPU_* < options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from typer.testing import CliRunner

from whisper_npu import settings
from whisper_npu.cli import config
from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "whisper-npu" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


app = typer.Typer()
app.add_typer(config.app)


@app.callback()
def _root(ctx: typer.Context) -> None:
    config.install(ctx)


@app.command()
def say(
    word: Annotated[str, typer.Option("--word-spoken")] = "nothing",
    times: Annotated[int, typer.Option("--times")] = 1,
    *,
    loud: Annotated[bool, typer.Option("--loud/--quiet")] = False,
) -> None:
    typer.echo(" ".join([word.upper() if loud else word] * times))


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_each_source_wins_over_the_one_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run("say") == "nothing"
    file.write_text('word-spoken = "file"\ntimes = 2\nloud = true\n')
    assert _run("say") == "FILE FILE"
    file.write_text('word-spoken = "file"\n[say]\nword_spoken = "table"\n')
    assert _run("say") == "table"
    monkeypatch.setenv("WHISPER_NPU_WORD_SPOKEN", "variable")
    monkeypatch.setenv("WHISPER_NPU_LOUD", "1")
    assert _run("say") == "VARIABLE"
    assert _run("say", "--word-spoken", "option", "--quiet") == "option"


def test_show_names_the_origins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("times = 2\n")
    monkeypatch.setenv("WHISPER_NPU_LOUD", "1")
    shown = _run("config", "show", "say").splitlines()
    assert f"times = 2  # {file}" in shown
    assert 'loud = "1"  # WHISPER_NPU_LOUD' in shown
    assert 'word-spoken = "nothing"  # default' in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tims = 2", "unknown setting 'tims'; did you mean times?"),
        ("[say]\nword-spokn = 2", "unknown setting 'word-spokn'; did you mean word-spoken?"),
        ("[sya]\n", "no command [sya]"),
        ("[confg]\n", "no command [confg]; did you mean [config]?"),
        ("= 3", "mend"),
        ('times = "often"', "times: 'often' is not"),
    ],
)
def test_a_slip_in_the_file_is_told(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(OptionError, match=re.escape(told)) as caught:
        _run("say")
    assert str(caught.value).startswith(str(file))


def test_a_slip_in_a_variable_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_TIMES", "often")
    with pytest.raises(OptionError, match=r"^WHISPER_NPU_TIMES: times: 'often' is not"):
        _run("say")
    monkeypatch.setenv("WHISPER_NPU_TIMES", "2")
    monkeypatch.setenv("WHISPER_NPU_WORD_SPOKE", "x")
    with pytest.raises(OptionError, match=r"^WHISPER_NPU_WORD_SPOKE is .* WHISPER_NPU_WORD_SPOKEN"):
        _run("say")


def test_a_wrong_value_matters_to_the_command_that_has_the_option(file: Path) -> None:
    file.write_text('times = "often"')
    assert _run("config", "path") == str(file)


def test_lists_are_texts_with_commas(file: Path, command_line: CommandLine) -> None:
    file.write_text('suppress-tokens = [1, 2]\ninclude = ["*.mp3"]\noffline = true\n')
    shown = command_line("config", "show").out.splitlines()
    assert f"suppress-tokens = [1, 2]  # {file}" in shown
    assert command_line("transcribe", "nothing*.wav").err.startswith("whisper-npu: nothing matches")


def test_an_option_that_is_refused_names_where_it_was_set(
    file: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("patience = 2\n")
    monkeypatch.setenv("WHISPER_NPU_BEAM_SIZE", "1")
    done = command_line("transcribe", "a.wav")
    assert done.code == 2
    assert done.err == (
        "whisper-npu: --patience needs a --beam-size of 2 or more; "
        f"--patience is set in {file}; --beam-size is set in WHISPER_NPU_BEAM_SIZE\n"
    )
    assert (
        "is set in"
        not in command_line("transcribe", "a.wav", "--patience", "2", "--beam-size", "1").err
    )


def test_a_setting_reaches_the_commands_of_a_group(file: Path, command_line: CommandLine) -> None:
    file.write_text("offline = true\n")
    assert "we are offline" in command_line("models", "pull", "owner/name").err


def test_what_is_shown_can_be_the_file(
    file: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHISPER_NPU_SKIP_SILENCE")
    shown = command_line("config", "show").out
    assert "# patience is not set  # default" in shown
    file.write_text(shown)
    again = command_line("config", "show").out
    assert again.count(str(file)) == shown.count(" = ") > 40
    assert command_line("transcribe", "nothing*.wav").err.startswith("whisper-npu: nothing matches")


def test_variables_that_are_no_options_are_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", "/somewhere")
    assert _run("say") == "nothing"


def test_the_file_can_be_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "my.toml"
    assert settings.config_file({"WHISPER_NPU_CONFIG": str(elsewhere)}) == elsewhere


@pytest.mark.parametrize(
    "arguments",
    [
        "serve -m ./nowhere", "listen - -m ./nowhere", "bench ./nowhere",
        "compile ./nowhere --target rk3588", "compare a.wav -m ./nowhere",
        "doctor --model ./nowhere --device cpu",
        "models path ./nowhere", "cache build ./nowhere --soc rk3588",
    ],
)  # fmt: skip
def test_settings_for_one_command_do_no_harm_to_another(
    file: Path, command_line: CommandLine, arguments: str
) -> None:
    file.write_text(
        'device = "npu"\nemulate = "rk3588"\nprecision = "f32"\nnpu-precision = "int8"\n'
        'npu-path = "layers"\nthreads = 1\nlanguage = "auto-each"\nbeam-size = 2\npatience = 2\n'
        'output-format = "srt"\noutput-dir = "out"\nworkers = 2\nmax-line-width = 42\n'
        "word-timestamps = true\nrecursive = true\noffline = true\n"
    )
    done = command_line(*arguments.split())
    assert done.code == 5, done.err  # only the model is wrong
    assert "./nowhere" in done.out + done.err
