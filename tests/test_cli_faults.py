"""Whatever is typed, piped or closed: one clear line, the right exit code, no file lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from collections.abc import Callable

    Shell = Callable[..., subprocess.CompletedProcess[bytes]]

QUICK = ["--temperature-increment-on-fallback", "none", "--sample-len", "3", "--device", "cpu"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with two recordings."""
    folder = tmp_path / "place"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(16000), 16000)
    return folder


@pytest.fixture
def shell(place: Path, tmp_path: Path, random_model: Callable[[str], Path]) -> Shell:
    """Run a line of bash; `whisper` is our transcribe with a small model."""
    program = f"{sys.executable} -m whisper_npu"
    whisper = " ".join([program, "transcribe", "-m", str(random_model("micro.en")), *QUICK])
    own = {
        "WHISPER_NPU_CACHE": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        script = f'set -o pipefail\nours() {{ {program} "$@"; }}\n'
        script += f'whisper() {{ {whisper} "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", script],
            cwd=place,
            env=os.environ | own | environment,
            capture_output=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "line",
    [
        "whisper a.wav --report a.wav",
        "whisper a.wav --report ./a.wav -o out",
        "whisper a.wav -o out --report out/a.txt",
        "cp a.wav x.txt && whisper x.txt -o .",
        "cp a.wav x.srt && mkdir out && ln -s ../x.srt out/x.srt && whisper x.srt -f srt -o out",
        "ours compare a.wav --report a.wav",
    ],
)
def test_nothing_is_written_over_a_recording(shell: Shell, place: Path, line: str) -> None:
    before = (place / "a.wav").read_bytes()
    done = shell(line)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(b"\n") == 1
    assert b"overwritten" in done.stderr or b"is the transcript of" in done.stderr
    assert (place / "a.wav").read_bytes() == before
    assert not (place / "out" / ".whisper-npu").exists()


def test_watching_writes_over_no_recording(shell: Shell, place: Path) -> None:
    shutil.move(place / "a.wav", place / "a.txt")
    os.utime(place / "a.txt", (1, 1))
    before = (place / "a.txt").read_bytes()
    done = shell("whisper . --include '*.txt' --watch -o .")
    assert (done.returncode, (place / "a.txt").read_bytes()) == (2, before)
    assert b"would be overwritten" in done.stderr


@pytest.mark.parametrize("name", ["../x", "x/y", "/x/y", "..", ".", "''"])
def test_a_name_never_leaves_the_folder(shell: Shell, place: Path, name: str) -> None:
    done = shell(f"whisper a.wav -o out --output-name {name}")
    assert done.returncode == 2
    assert b"is not a plain file name" in done.stderr
    assert {path.name for path in place.iterdir()} == {"a.wav", "b.wav"}


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("whisper ''", 2, "the name of a recording is empty"),
        ("whisper a.wav -m ''", 5, "the name of the model is empty"),
        ("whisper a.wav -o b.wav/x", 8, "b.wav is a file, not a folder"),
        ("whisper a.wav --report .", 2, "is a folder, not a file"),
        ("whisper . --watch -o x --output-name y", 2, "needs a single recording"),
        ("ours doctor --emulate rk1", 2, "no emulator for 'rk1': use rk3588 or rk3566"),
        (
            "whisper a.wav --suppress-tokens 99999",
            2,
            "suppress_tokens: 99999 is no token of this model",
        ),
        ("ours compare - < a.wav", 2, "name a file, not standard input"),
        ("mkdir x; cd x; rmdir ../x; whisper a.wav", 1, "the system refuses"),
    ],
)
def test_one_line_says_what_is_wrong(shell: Shell, line: str, code: int, told: str) -> None:
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert told in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_a_file_is_no_folder(shell: Shell, place: Path) -> None:
    done = shell("whisper a.wav -o talk.SRT")
    assert done.returncode == 2
    assert b"--output-dir . --output-name talk --output-format srt" in done.stderr
    (place / "old.srt").mkdir()
    assert shell("whisper a.wav -o old.srt").returncode == 0


def test_names_that_are_no_text(shell: Shell, place: Path) -> None:
    shutil.copy(place / "a.wav", place / os.fsdecode(b"caf\xe9.wav"))
    done = shell("whisper caf*.wav --report x.html -o out -f all")
    assert done.returncode == 0, done.stderr
    assert rb"done     caf\xe9.wav" in done.stderr
    assert r"caf\xe9.txt" in (place / "x.html").read_text("utf-8")


def test_names_that_steer_a_terminal(shell: Shell, place: Path) -> None:
    shutil.copy(place / "a.wav", place / "x\n\x1b[31m.wav")
    for line in ("whisper x*.wav -o out", "whisper . -o two", "whisper x*.wav -f srt,txt"):
        done = shell(line)
        assert b"\x1b" not in done.stderr
        assert rb"x\n\x1b[31m.txt" in done.stderr or done.returncode == 2
    missing = shell("whisper $'no\\n\\e[31m.wav'; whisper $'no\\n\\e[31m*.wav'")
    assert b"\x1b" not in missing.stderr
    assert missing.stderr.count(b"\n") == 2


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("whisper a.wav >&-", 8, "cannot write to standard output: Bad file descriptor"),
        ("whisper a.wav b.wav -o out >&-", 0, "2 done"),
        ("whisper a.wav -o out 2>&-", 0, ""),
        ("whisper a.wav -o out <&- >&- 2>&-", 0, ""),
        ("whisper gone.wav 2>&-", 4, ""),
        ("whisper --bogus 2>&-", 2, ""),
        ("ours --help >&-", 8, "cannot write to standard output"),
        ("ours models list > /dev/full", 8, "cannot write to standard output: No space"),
        ("ours config show 2> /dev/full > /dev/null", 8, ""),
    ],
)
def test_closed_and_full_streams(
    shell: Shell, place: Path, line: str, code: int, told: str
) -> None:
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert told in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    if "out" in line.split():
        assert (place / "out" / "a.txt").read_bytes().count(b"\n") <= 1


@pytest.mark.parametrize(
    "line",
    [
        "whisper a.wav b.wav | true",
        "whisper a.wav b.wav --json | head -c 1 > /dev/null",
        "ours config show | true",
    ],
)
def test_a_reader_that_goes_away(shell: Shell, line: str) -> None:
    done = shell(f"sleep 0; {line}")
    assert done.returncode in (0, 141)  # 0: all was written before it went
    assert b"Traceback" not in done.stderr
    assert b"cannot write" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "name", "word"),
    [("ascii", "ü".encode(), "Grüße ♪".encode()), ("latin-1", b"\xfc", b"Gr\xfc\xdfe \\u266a")],
)
def test_letters_that_the_terminal_does_not_have(
    shell: Shell, place: Path, encoding: str, name: bytes, word: bytes
) -> None:
    (place / "ü.wav").write_bytes((place / "a.wav").read_bytes())
    done = shell("whisper ü.wav -o out && ours transcribe --help", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert name + b".wav" in done.stderr
    code = "from whisper_npu.cli import streams; streams.prepare(); print('Grüße ♪')"
    done = shell(f'{sys.executable} -c "{code}"', PYTHONIOENCODING=encoding)
    assert done.stdout == word + b"\n"


def test_one_device_and_no_reference(shell: Shell) -> None:
    done = shell("ours compare a.wav --devices cpu-f32 --fail-above 0.1 -m no/such")
    assert done.returncode == 2
    assert b"--fail-above has nothing to hold one device against" in done.stderr


def test_a_command_without_a_command_shows_help(shell: Shell) -> None:
    for line in ("ours", "ours models"):
        done = shell(line)
        assert done.returncode == 2
        assert done.stderr.startswith(b"Usage: ")
        assert done.stderr.count(b"\n") > 5


def test_a_model_that_does_not_exist(shell: Shell) -> None:
    for line in ("doctor --model nosuch", "doctor --model ./nosuch"):
        done = shell(f"ours {line}")
        assert done.returncode == 5
        assert b"-> whisper-npu models list" in done.stdout
    assert b"-> whisper-npu models pull small" in shell("ours doctor --model small").stdout


@pytest.mark.parametrize("command", ["path", "verify", "rm", "pull --offline"])
@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "place", "a/../../b"])
def test_a_folder_that_is_no_model(shell: Shell, place: Path, command: str, name: str) -> None:
    (place / "place").mkdir()
    done = shell(f"ours models {command} {name}")
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr.count(b"\n") == 1
    assert (place / "place").is_dir()


def test_what_only_several_options_tell_names_where_it_was_set(shell: Shell) -> None:
    done = shell("whisper a.wav --beam-size 1", WHISPER_NPU_PATIENCE="2")
    assert done.returncode == 2
    assert done.stderr.endswith(
        b"whisper-npu: --patience needs a --beam-size of 2 or more; "
        b"--patience is set in WHISPER_NPU_PATIENCE\n"
    )
