"""Batches lose nothing: skipping, failing, changing and unwritable recordings."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from fake_speech import Engine, Watcher, prepare, transcribe

from whisper_npu.batch import Batch
from whisper_npu.batch.journal import FOLDER, Journal
from whisper_npu.batch.recordings import find
from whisper_npu.cache import replacing
from whisper_npu.errors import AudioError, OptionError
from whisper_npu.options import BatchOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for i in range(3):
        (folder / f"r{i}.wav").write_text(f"hello {i}\nagain {i}\n")
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and FOLDER not in path.parts
    }


def test_a_second_run_does_only_what_is_missing_or_changed(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, batch = transcribe([tree], out)
    assert first.statuses() == {"r0": "done", "r1": "done", "r2": "done"}
    assert batch.report.exit_code == 0
    assert (out / "r1.txt").read_text() == "hello 1\nagain 1\n"
    before = _files(out)
    (tree / "r0.wav").write_text("something else\n")
    (out / "r1.json").unlink()
    (out / "r2.txt").write_text("corrected by hand\n")
    engine = Engine()
    second, _ = transcribe([tree], out, engine=engine)
    assert second.statuses() == {"r0": "done", "r1": "done", "r2": "skipped"}
    assert engine.heard == ["something else", "hello 1", "again 1"]
    after = _files(out)
    assert after["r1.json"] == before["r1.json"]
    assert after["r2.txt"] == b"corrected by hand\n"


def test_a_touched_recording_is_recognised_by_its_content(tree: Path, tmp_path: Path) -> None:
    transcribe([tree], tmp_path / "out")
    os.utime(tree / "r0.wav", (1, 1))
    assert transcribe([tree], tmp_path / "out")[0].statuses()["r0"] == "skipped"


def test_other_options_are_other_work(tree: Path, tmp_path: Path) -> None:
    transcribe([tree], tmp_path / "out")
    again, _ = transcribe([tree], tmp_path / "out", work="other options")
    assert set(again.statuses().values()) == {"done"}
    skipped, _ = transcribe([tree], tmp_path / "out", work="others", skip_existing=True)
    assert set(skipped.statuses().values()) == {"skipped"}
    redone, _ = transcribe([tree], tmp_path / "out", work="others", resume=False)
    assert set(redone.statuses().values()) == {"done"}


@pytest.mark.parametrize(("n_workers", "batch_size"), [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_a_bad_recording_stops_nobody(
    tree: Path, tmp_path: Path, n_workers: int, batch_size: int
) -> None:
    (tree / "r1.wav").write_text("bad")
    watcher, batch = transcribe(
        [tree, tree / "gone.wav"], tmp_path / "out", n_workers=n_workers, batch_size=batch_size
    )
    assert watcher.statuses() == {"r0": "done", "r1": "failed", "r2": "done", "gone": "failed"}
    assert batch.report.exit_code == 3
    assert "r1.wav: not audio" in batch.report.table()
    again, batch = transcribe([tree], tmp_path / "out")
    assert "--retry-failed" in again.results["r1"].reason
    assert batch.report.exit_code == 3
    (tree / "r1.wav").write_text("good now\n")
    assert transcribe([tree], tmp_path / "out")[0].statuses()["r1"] == "done"


def test_failures_are_tried_again_when_asked(tree: Path, tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise AudioError("no good")

    failing, batch = transcribe([tree], tmp_path / "out", engine=Engine(on_window=refuse))
    assert set(failing.statuses().values()) == {"failed"}
    assert batch.report.exit_code == 4
    assert set(transcribe([tree], tmp_path / "out")[0].statuses().values()) == {"failed"}
    again, _ = transcribe([tree], tmp_path / "out", retry_failed=True)
    assert set(again.statuses().values()) == {"done"}


def test_the_parts_of_an_interrupted_recording_are_kept(tree: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    transcribe([tree], whole)
    batch: Batch | None = None

    def stop(line: str) -> None:
        if line == "hello 1":
            assert batch is not None
            batch.stop()

    watcher = Watcher()
    batch = Batch(
        find([tree]), BatchOptions(out, ("txt", "json")), {"work": "model"}, prepare, watcher
    )
    from whisper_npu.batch.workers import run

    run(batch, lambda *_: Engine(on_window=stop))
    assert watcher.statuses() == {"r0": "done", "r1": "interrupted"}
    assert "1 not begun" in batch.report.table()
    engine = Engine()
    resumed, _ = transcribe([tree], out, engine=engine, work="model")
    assert engine.heard == ["again 1", "hello 2", "again 2"]
    assert resumed.begun == [("r1", 30.0), ("r2", 0.0)]
    assert _files(out) == _files(whole)
    assert [path.name for path in (out / FOLDER).iterdir()] == ["journal.jsonl"]


@pytest.mark.parametrize("change", ["grow", "replace", "delete"])
def test_a_recording_that_changes_under_us(
    tree: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_speech

    def meddling(path: Path, stack: object) -> object:
        result = prepare(path, stack)  # type: ignore[arg-type]
        if path.name == "r1.wav":
            if change == "grow":
                path.write_text(path.read_text() + "more\n")
            elif change == "delete":
                path.unlink()
            else:
                other = path.with_name("new")
                other.write_text("HELLO 1\nAGAIN 1\n")
                other.replace(path)
        return result

    monkeypatch.setattr(fake_speech, "prepare", meddling)
    watcher, batch = transcribe([tree], tmp_path / "out")
    assert watcher.statuses() == {"r0": "done", "r1": "failed", "r2": "done"}
    assert batch.report.exit_code == 3
    assert not (tmp_path / "out" / "r1.txt").exists()
    monkeypatch.undo()
    if change != "delete":
        assert transcribe([tree], tmp_path / "out")[0].statuses()["r1"] == "done"


def test_a_recording_replaced_after_it_was_heard_is_done_again(tree: Path, tmp_path: Path) -> None:
    def replace(line: str) -> None:
        (tree / "r0.wav").write_text("new\n")

    transcribe([tree / "r0.wav"], tmp_path / "out", engine=Engine(on_window=replace))
    assert (tmp_path / "out" / "r0.txt").read_text() == "hello 0\nagain 0\n"
    transcribe([tree / "r0.wav"], tmp_path / "out")
    assert (tmp_path / "out" / "r0.txt").read_text() == "new\n"


def test_two_batches_share_one_folder(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other: list[Watcher] = []

    def work_beside(line: str) -> None:
        if line == "hello 0":
            other.append(transcribe([tree], out)[0])

    engine = Engine(on_window=work_beside)
    first, _ = transcribe([tree], out, engine=engine)
    assert other[0].statuses()["r0"] == "skipped"
    assert "another process" in other[0].results["r0"].reason
    statuses = [first.statuses(), other[0].statuses()]
    for name in ("r0", "r1", "r2"):
        assert sorted(each[name] for each in statuses) == ["done", "skipped"]


def test_an_unwritable_place_costs_no_work(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "r1.txt").mkdir(parents=True)
    watcher, batch = transcribe([tree], out)
    assert watcher.statuses() == {"r0": "done", "r1": "failed", "r2": "done"}
    assert batch.report.exit_code == 8
    (out / "r1.txt").rmdir()
    engine = Engine()
    again, _ = transcribe([tree], out, engine=engine)
    assert again.statuses()["r1"] == "done"
    assert engine.heard == []  # every window had been kept


def test_what_a_killed_process_left_is_removed(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = Journal(out)
    with journal.claim("r0") as claim:
        assert claim is not None
        claim.restore("old work", "old content")
    with replacing(out / "r0.txt") as new:
        kept = shutil.copytree(new.parent, out / f"{new.parent.name[:-8]}k1lled_x")
        new.write_text("half")
    (kept / "r0.txt").write_text("hal")
    (out / ".r0.txt").write_text("somebody else's")
    transcribe([tree], out)
    assert {path.name for path in out.glob(".*")} == {".r0.txt", FOLDER}


def test_nothing_is_written_without_a_folder(tree: Path, tmp_path: Path) -> None:
    watcher, _ = transcribe([tree], None)
    assert set(watcher.statuses().values()) == {"done"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    import threading

    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("through a pipe\n",))
    writer.start()
    assert transcribe([pipe], tmp_path / "out")[0].statuses() == {"pipe": "done"}
    writer.join()


def test_the_report(tree: Path, tmp_path: Path) -> None:
    (tree / "r1.wav").write_text("bad")
    _, batch = transcribe([tree], tmp_path / "out")
    report = json.loads(batch.report.json())
    summary = report["summary"]
    assert (summary["done"], summary["failed"], summary["audio_seconds"]) == (2, 1, 120.0)
    assert summary["device"] == "scripted"
    assert summary["peak_rss_bytes"] > 1e6
    outputs = [tuple(each["outputs"]) for each in report["recordings"]]
    assert sorted(outputs) == [(), ("r0.txt", "r0.json"), ("r2.txt", "r2.json")]


def test_the_engine_is_closed_and_its_errors_end_the_batch(tree: Path, tmp_path: Path) -> None:
    from whisper_npu.errors import DeviceFault

    def fault(line: str) -> None:
        if line == "again 1":
            raise DeviceFault("the device has gone")

    engine = Engine(on_window=fault)
    with pytest.raises(DeviceFault):
        transcribe([tree], tmp_path / "out", engine=engine)
    assert engine.closed
    resumed = Engine()
    transcribe([tree], tmp_path / "out", engine=resumed)
    assert resumed.heard == ["again 1", "hello 2", "again 2"]


def test_no_engine_is_opened_for_nothing(tree: Path, tmp_path: Path) -> None:
    transcribe([tree], tmp_path / "out")
    shutil.rmtree(tree / "deep")
    watcher = Watcher()
    batch = Batch(
        find([tree]),
        BatchOptions(tmp_path / "out", ("txt", "json")),
        {"work": "model and options"},
        prepare,
        watcher,
    )
    from whisper_npu.batch.workers import run

    run(batch, lambda *_: pytest.fail("opened"))
    assert set(watcher.statuses().values()) == {"skipped"}


def test_options() -> None:
    with pytest.raises(OptionError, match="output_format: 'doc' is not one of txt, "):
        BatchOptions(output_format=("doc",))
