"""A disk that takes nothing more ends the work at once, says which it is, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from fake_speech import Engine, transcribe
from faults import make_texts, outputs

from whisper_npu.batch.recordings import find
from whisper_npu.disks import unwritten
from whisper_npu.errors import DiskError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import CommandLine


class Disk:
    """One that is full after so many files or lines were put on it."""

    def __init__(self, room: int) -> None:
        self.room = room

    def fsync(self, _: int) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", range(0, 40, 3))
@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_batch_ends_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, n_workers: int
) -> None:
    recordings = make_texts(tmp_path / "in", 20)
    transcribe([recordings], tmp_path / "expected")
    expected, out = outputs(tmp_path / "expected"), tmp_path / "out"
    disk, engine = Disk(room), Engine()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk.fsync)
        with pytest.raises(DiskError, match="no space is left on the disk at"):
            transcribe([recordings], out, engine=engine, n_workers=n_workers)
    assert disk.room >= -3 * n_workers  # nobody tried again
    kept = outputs(out)
    assert len(kept) < len(expected)
    assert kept.items() <= expected.items()
    transcribe([recordings], out, n_workers=n_workers)
    assert outputs(out) == expected
    assert [path.name for path in (out / ".whisper-npu").iterdir()] == ["journal.jsonl"]


def test_what_concerns_one_file_ends_one_recording(tmp_path: Path) -> None:
    recordings = make_texts(tmp_path / "in", 5)
    (tmp_path / "out" / "r01.txt").mkdir(parents=True)
    watcher, batch = transcribe([recordings], tmp_path / "out")
    assert watcher.statuses() == dict.fromkeys(["r00", "r02", "r03", "r04"], "done") | {
        "r01": "failed"
    }
    assert batch.report.exit_code == OutputError.exit_code


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EIO])
def test_which_disk_and_what_to_do(tmp_path: Path, number: int) -> None:
    (tmp_path / "x").touch()
    error = unwritten(tmp_path / "deep" / "x\n", OSError(number, os.strerror(number)))
    assert isinstance(error, DiskError)
    assert error.exit_code == 8
    with pytest.raises(OutputError, match="x is a file, not a folder"):
        raise unwritten(tmp_path / "x" / "y", NotADirectoryError(errno.ENOTDIR, "?"))
    assert "on the disk" not in str(unwritten(tmp_path, OSError(errno.EACCES, "no")))


# real ones


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB with 64 kB of ballast on it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        (folder / "ballast").write_bytes(bytes(64 << 10))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave not a byte."""
    with (folder / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(8000), 16000)
    os.utime(folder / "0.wav", (1, 1))
    return folder


QUICK = "--temperature-increment-on-fallback none --sample-len 3 --device cpu".split()


@pytest.mark.parametrize("inputs", [["0.wav"], ["."], [".", "--watch"], [".", "--workers", "2"]])
def test_outputs(
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    recordings: Path,
    small: Path,
    inputs: list[str],
) -> None:
    monkeypatch.chdir(recordings)
    (small / "out").mkdir()
    fill(small)
    words = ["transcribe", "-m", model, *QUICK, *inputs, "-o", small / "out"]
    result = command_line(*words)
    assert result.code == 8
    assert f"no space is left on the disk at {small}: make room there" in result.err
    assert outputs(small / "out") == {}
    (small / "filling").unlink()
    if "--watch" not in inputs:
        assert command_line(*words).code == 0
        assert len(outputs(small / "out")) == len(find([recordings / inputs[0]]))


def test_a_cache_without_room(
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    recordings: Path,
    small: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = command_line("transcribe", "-m", model, *QUICK, recordings / "0.wav")
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(small))
    result = command_line("transcribe", "-m", model, *QUICK, recordings / "0.wav")
    assert (result.code, result.out) == (0, expected.out)
    assert f"no space is left on the disk at {small}" in caplog.text
    assert not list(small.glob("weights/*.bin"))


def test_a_report_without_room(
    command_line: CommandLine, model: str, recordings: Path, small: Path
) -> None:
    fill(small)
    words = ["transcribe", "-m", model, *QUICK, recordings / "0.wav", "--report", small / "x.json"]
    result = command_line(*words)
    assert result.code == 8
    assert f"cannot write {small / 'x.json'}: no space is left" in result.err
    assert not (small / "x.json").exists()


def test_a_pipe_without_room(model: str, recordings: Path, small: Path) -> None:
    recording = recordings / "long.wav"
    soundfile.write(recording, np.zeros(400_000), 16000)
    command = [sys.executable, "-m", "whisper_npu", "transcribe", "-m", model, *QUICK, "-"]
    environment = os.environ | {"TMPDIR": str(small)}
    cat = shutil.which("cat") or "cat"
    with subprocess.Popen([cat, str(recording)], stdout=subprocess.PIPE) as source:
        done: Any = subprocess.run(
            command,
            stdin=source.stdout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert source.stdout is not None
        source.stdout.close()
    assert (done.returncode, done.stdout) == (8, "")
    assert f"no room in {small} for what comes through a pipe" in done.stderr
