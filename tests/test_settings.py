"""config.toml < WHISPER_NPU_* < options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from typer.testing import CliRunner

from whisper_npu import settings
from whisper_npu.cli import config
from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "whisper-npu" / "config.toml"
    path.parent.mkdir()
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
    assert "loud = '1'  # WHISPER_NPU_LOUD" in shown
    assert "word-spoken = 'nothing'  # default" in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [("tims = 2", "unknown setting 'tims'"), ("[sya]\n", "no command 'sya'"), ("= 3", "mend")],
)
def test_a_slip_in_the_file_is_told(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(OptionError, match=told):
        _run("say")


def test_a_value_of_the_wrong_kind_is_a_usage_error(file: Path) -> None:
    file.write_text('times = "often"')
    assert CliRunner().invoke(app, ["say"]).exit_code == 2


def test_variables_that_are_no_options_are_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", "/somewhere")
    assert _run("say") == "nothing"


def test_the_file_can_be_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "my.toml"
    assert settings.config_file({"WHISPER_NPU_CONFIG": str(elsewhere)}) == elsewhere
