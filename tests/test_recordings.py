"""Which recordings are meant, and that no two share an output."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.batch.recordings import Recording, find, watch
from whisper_npu.errors import OptionError
from whisper_npu.options import InputOptions


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _outputs(*arguments: object, **search: object) -> list[str]:
    found = find(arguments, InputOptions(**search))  # type: ignore[arg-type]  # tests name them
    return [recording.output for recording in found]


def test_folders(tmp_path: Path) -> None:
    _touch(tmp_path, "b.wav", "a.mp3", "notes.txt", ".hidden.wav", "x/c.flac", "x/.y/d.wav")
    assert _outputs(tmp_path) == ["a", "b"]
    assert _outputs(tmp_path, recursive=True) == ["a", "b", "x/c"]
    assert _outputs(tmp_path, recursive=True, include=("x/*", "*.txt")) == ["notes", "x/c"]
    assert _outputs(tmp_path, recursive=True, exclude=("x/*",)) == ["a", "b"]
    assert _outputs(tmp_path, recursive=True, exclude=("*.mp3",)) == ["b", "x/c"]


def test_patterns_and_names(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "b.wav", "b.txt", "[1].wav", "x/c.wav")
    assert _outputs(tmp_path / "*.wav") == ["[1]", "a", "b"]
    assert _outputs(tmp_path / "**/*.wav") == ["[1]", "a", "b", "c"]
    assert _outputs(tmp_path / "[1].wav") == ["[1]"]  # a name before it is a pattern
    assert _outputs(tmp_path / "b.txt", tmp_path / "gone.wav", "-") == ["b", "gone", "stdin"]
    assert _outputs(tmp_path / "a.wav", tmp_path / "x" / ".." / "a.wav") == ["a"]  # once
    with pytest.raises(OptionError, match="nothing matches"):
        find([tmp_path / "*.ogg"])


def test_collisions(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "a.mp3", "B.wav", "b.ogg", "x/c.wav", "y/c.wav", "d.wav")
    assert _outputs(tmp_path) == ["B.wav", "a.mp3", "a.wav", "b.ogg", "d"]
    one, other = _outputs(tmp_path / "x/c.wav", tmp_path / "y/c.wav")
    assert one != other
    assert one.startswith("c.wav.")
    assert _outputs(tmp_path, recursive=True)[-2:] == ["x/c", "y/c"]


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a.wav", "x/b.wav")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "x":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _outputs(tmp_path, recursive=True) == ["a", "x"]


NAMES = ["line\nbreak.wav", "émoji 🎤.wav", os.fsdecode(b"not \xff utf8.wav"), "-dash.wav", " .wav"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, name)
    (recording,) = find([tmp_path])
    assert recording.path.exists()
    assert "\n" not in recording.name
    recording.name.encode("utf-8")
    assert recording.output == name.removesuffix(".wav")


def test_watching(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav")
    os.utime(tmp_path / "a.wav", (1, 1))
    watching = watch([tmp_path], InputOptions(), lambda: False, interval=0.1)
    assert next(watching).output == "a"
    _touch(tmp_path, "b.wav")
    assert next(watching).output == "b"  # after it was left alone for a while
    (tmp_path / "a.wav").write_bytes(b"more")
    assert next(watching).output == "a"
    stopped = watch([tmp_path / "*.none"], InputOptions(), lambda: True)
    assert list(stopped) == []


name = st.sampled_from(["a", "A", "b", "a.wav", "é", "e\u0301", "ß", "SS", ".a", "a."])
path = st.builds(
    "{}/{}{}".format, st.sampled_from("xX"), name, st.sampled_from([".wav", ".mp3", ""])
)


@settings(max_examples=100)
@given(st.lists(path, min_size=1, max_size=8, unique=True))
def test_no_two_recordings_share_an_output(paths: list[str]) -> None:
    with TemporaryDirectory() as folder:
        _touch(Path(folder), *paths)
        for found in (
            find([Path(folder, one) for one in paths]),
            find([folder], InputOptions(recursive=True, include=("*",))),
        ):
            outputs = {recording.output.casefold() for recording in found}
            assert len(outputs) == len(found)
            assert all(not Path(output).is_absolute() for output in outputs)
            assert all(".." not in Path(output).parts for output in outputs)


def test_a_recording_is_named_for_people() -> None:
    assert Recording(Path("x/a.wav"), "a").name == "x/a.wav"


@pytest.mark.parametrize("address", ["https://host.example/talk.mp3", "FTP://host/a", "rtsp+x://h"])
def test_an_address_is_told_what_it_is(address: str) -> None:
    with pytest.raises(OptionError, match=f"{re.escape(address)} is a URL: download it first"):
        find([address])
