"""The journal survives torn lines, garbage, and others who write to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_npu.batch.journal import FOLDER, Journal, Outcome, Source
from whisper_npu.errors import OutputError
from whisper_npu.events import State
from whisper_npu.transcript import Segment, Word

SOURCE = Source(10, 20, "abc")
DONE = Outcome("done", "w", SOURCE, ("a.txt",))
number = st.floats(allow_nan=False)
words = st.builds(Word, st.text(), number, number, number)
segments = st.builds(
    Segment,
    *(st.integers(0, 1 << 40), st.integers(0, 1 << 40), number, number, st.text()),
    st.lists(st.integers(0, 60000)).map(tuple),
    *(number, number, number, number),
    st.none() | st.lists(words, max_size=3).map(tuple),
)


def test_what_is_added_is_read_by_others(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path), Journal(tmp_path)
    ours.add("a", DONE)
    theirs.add("b", replace(DONE, status="failed", error="no"))
    ours.refresh()
    assert ours.entry("b") == replace(DONE, status="failed", error="no")
    assert Journal(tmp_path).entry("a") == DONE
    assert Journal(tmp_path).entry("c") is None


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / FOLDER / "journal.jsonl"
    Journal(tmp_path).add("a", DONE)
    Journal(tmp_path).add("b", DONE)
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal(tmp_path)
    assert journal.entry("a") == DONE
    journal.add("c", DONE)
    again = Journal(tmp_path)
    assert (again.entry("a"), again.entry("c")) == (DONE, DONE)


@given(st.lists(st.binary(max_size=30) | st.just(b'{"recording": "a"}'), max_size=5))
def test_garbage_is_passed_over(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        journal.add("a", DONE)
        with (Path(folder) / FOLDER / "journal.jsonl").open("ab") as file:
            file.write(b"\n".join(lines))
        again = Journal(Path(folder))
        again.add("z", DONE)
        assert again.entry("a") == DONE
        assert Journal(Path(folder)).entry("z") == DONE


@given(st.lists(st.lists(segments, max_size=3), min_size=1, max_size=3), st.text())
def test_windows_come_back_exactly(windows: list[list[Segment]], recording: str) -> None:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        with journal.claim("x" + recording.replace("\0", "")) as claim:
            assert claim is not None
            assert claim.restore("w", "c") == (None, [])
            for i, found in enumerate(windows, 1):
                claim.add(State(seek=i, recent=(1, 2)), found)
        with journal.claim("x" + recording.replace("\0", "")) as claim:
            assert claim is not None
            assert claim.interrupted
            state, back = claim.restore("w", "c")
            assert state == State(seek=len(windows), recent=(1, 2))
            assert back == [segment for found in windows for segment in found]
            assert claim.restore("w", "other content") == (None, [])


def test_a_torn_window_is_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.claim("a") as claim:
        assert claim is not None
        claim.restore("w", "c")
        claim.add(State(seek=1), [])
        claim.add(State(seek=2), [])
    (part,) = (tmp_path / FOLDER).glob("*.jsonl")
    part.write_bytes(part.read_bytes()[:-5])
    with journal.claim("a") as claim:
        assert claim is not None
        assert claim.restore("w", "c")[0] == State(seek=1)
        claim.add(State(seek=3), [])
        assert claim.restore("w", "c")[0] == State(seek=3)
        claim.forget()
    assert not list((tmp_path / FOLDER).glob("*.jsonl"))


@pytest.mark.parametrize("damage", ['{"state": 1}', '{"state": {"seek": 1}, "segments": 7}', "[]"])
def test_damaged_windows_begin_again(tmp_path: Path, damage: str) -> None:
    journal = Journal(tmp_path)
    with journal.claim("a") as claim:
        assert claim is not None
        claim.restore("w", "c")
    (part,) = (tmp_path / FOLDER).glob("*.jsonl")
    part.write_text(part.read_text() + damage + "\n")
    with journal.claim("a") as claim:
        assert claim is not None
        assert claim.restore("w", "c") == (None, [])


def test_one_at_a_time(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path), Journal(tmp_path)
    with ours.claim("a") as claim:
        assert claim is not None
        with theirs.claim("a") as other:
            assert other is None
        with theirs.claim("b") as other:
            assert other is not None
    with theirs.claim("a") as other:
        assert other is not None
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_journal_is_plain_json_lines(tmp_path: Path) -> None:
    Journal(tmp_path).add("\udcff\n", DONE, elapsed=1)
    (line,) = (tmp_path / FOLDER / "journal.jsonl").read_text(encoding="ascii").splitlines()
    assert json.loads(line)["recording"] == "\udcff\n"


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "file")
