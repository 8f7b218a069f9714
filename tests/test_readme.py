"""The documentation against the program: commands, options, exit codes, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from whisper_npu import errors
from whisper_npu.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def typed(page: Path) -> list[str]:
    """Command lines of this program in a page: in blocks, and in `code`."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in joined(block)]
    lines += re.findall(r"`(whisper-npu [^`]+)`", text)
    found = (re.search(r"\bwhisper-npu ([^|>&;]+)", line) for line in lines)
    return [match[1].strip() for match in found if match]


def joined(block: str) -> list[str]:
    """Lines, those that a backslash continues in one piece."""
    return block.replace("\\\n", " ").splitlines()


def command_lines() -> list[Any]:
    return [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in typed(page)]


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_is_understood(line: str) -> None:
    """Parsed as the program does it, not run."""
    words = shlex.split(line.replace("...", "x"))
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    options |= {option for parameter in command.params for option in parameter.secondary_opts}
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= options | {"--help", "-h"}
    given = [word for word in words if not word.startswith("-")]
    if given:  # a mention of an option alone need not be a whole command
        command.make_context(command.name, words)


def test_there_are_command_lines() -> None:
    assert len(typed(ROOT / "README.md")) > 5


def test_exit_codes_are_those_of_the_errors() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    table = {int(code) for code in re.findall(r"^\| (\d+)[ ,]", readme, re.MULTILINE)}
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.WhisperNpuError)
    }
    assert raised | {0, 3} <= table
    assert re.search(r"^\| 130, 143 \|", readme, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "architecture.md"])
def test_the_map_shows_what_is_there(page: Path) -> None:
    block = re.search(
        r"^```\nwhisper_npu/\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert block
    within = re.findall(r"^    (\w+(?:\.py|/)) ", block[1], re.MULTILINE)
    assert len(within) > 10
    assert [name for name in within if not (ROOT / "whisper_npu" / name).exists()] == []
