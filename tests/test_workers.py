"""Workers overlap, share the work, and need less memory when told to."""

from __future__ import annotations

import mmap
import threading
import time
from typing import TYPE_CHECKING

import fake_speech
import pytest
from fake_speech import Engine, Watcher, prepare
from faults import make_texts

from whisper_npu.batch import Batch, workers
from whisper_npu.batch.recordings import find
from whisper_npu.errors import DeviceError, OptionError, OutputError
from whisper_npu.options import BatchOptions

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path


def _batch(folder: Path, out: Path) -> Batch:
    return Batch(find([folder]), BatchOptions(out), {}, prepare, Watcher())


def test_the_next_recording_is_prepared_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    seen: dict[str, int] = {}

    def noting(path: Path, stack: ExitStack) -> object:
        prepared.append(path.stem)
        return prepare(path, stack)

    def wait_for_the_next(line: str) -> None:
        deadline = time.monotonic() + 10
        while len(prepared) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.setdefault(line, len(prepared))

    monkeypatch.setattr(fake_speech, "prepare", noting)
    recordings = make_texts(tmp_path / "in", 6)
    fake_speech.transcribe([recordings], tmp_path / "out", engine=Engine(wait_for_the_next))
    assert seen["recording 0 window 0"] == 2
    assert max(seen[line] - int(line.split()[1]) for line in seen) == 2  # and no further


def test_each_worker_has_an_engine(tmp_path: Path) -> None:
    meeting = threading.Barrier(3)
    engines: dict[int, Engine] = {}

    def meet(line: str) -> None:
        if "window 0" in line and int(line.split()[1]) < 3:
            meeting.wait(100)  # a busy machine is slow to start threads

    def open_engine(number: int, of: int) -> Engine:
        assert of == 3
        engines[number] = Engine(meet)
        return engines[number]

    batch = _batch(make_texts(tmp_path / "in", 9), tmp_path / "out")
    workers.run(batch, open_engine, 3)
    assert sorted(engines) == [0, 1, 2]
    assert all(engine.closed for engine in engines.values())
    assert [result.status for result in batch.report.results] == ["done"] * 9


def test_recordings_of_a_batch_share_an_engine(tmp_path: Path) -> None:
    meeting = threading.Barrier(3)
    engines: list[Engine] = []

    def meet(line: str) -> None:
        if "window 0" in line and int(line.split()[1]) < 3:
            meeting.wait(100)

    def open_engine(number: int, of: int) -> Engine:
        assert (number, of) == (0, 1)
        engines.append(Engine(meet))
        return engines[-1]

    batch = _batch(make_texts(tmp_path / "in", 9), tmp_path / "out")
    workers.run(batch, open_engine, batch_size=3)
    assert [engine.closed for engine in engines] == [True]
    assert [result.status for result in batch.report.results] == ["done"] * 9


def test_an_engine_that_does_not_open_is_tried_once(tmp_path: Path) -> None:
    tried: list[int] = []

    def open_engine(number: int, _: int) -> Engine:
        tried.append(number)
        raise DeviceError("not here")

    batch = _batch(make_texts(tmp_path / "in", 9), tmp_path / "out")
    with pytest.raises(DeviceError, match="not here"):
        workers.run(batch, open_engine, batch_size=4)
    assert tried == [0]


def test_above_the_limit_one_recording_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "anonymous_memory", lambda: 2000)
    engine = Engine(lambda _: time.sleep(0.02))
    batch = _batch(make_texts(tmp_path / "in", 12), tmp_path / "out")
    workers.run(batch, lambda *_: engine, batch_size=3, max_memory=1000)
    assert [result.status for result in batch.report.results] == ["done"] * 12
    last = [line for line in engine.heard if int(line.split()[1]) > 4]
    assert last == sorted(last, key=lambda line: int(line.split()[1]))  # one after the other


def test_above_the_limit_one_worker_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "anonymous_memory", lambda: 2000)
    engines: list[Engine] = []

    def open_engine(*_: int) -> Engine:
        engines.append(Engine(lambda _: time.sleep(0.02)))
        return engines[-1]

    batch = _batch(make_texts(tmp_path / "in", 12), tmp_path / "out")
    workers.run(batch, open_engine, 3, max_memory=1000)
    assert [result.status for result in batch.report.results] == ["done"] * 12
    shares = sorted(len({line.split()[1] for line in engine.heard}) for engine in engines)
    assert shares[:-1] == [1] * (len(engines) - 1)  # all but one left after their first
    assert shares[-1] == 13 - len(engines)


def test_a_listener_that_fails_ends_the_batch(tmp_path: Path) -> None:
    class Deaf(Watcher):
        def heard(self, *_: object) -> None:
            raise OutputError("nobody reads")

    recordings = find([make_texts(tmp_path / "in", 3)])
    batch = Batch(recordings, BatchOptions(tmp_path / "out"), {}, prepare, Deaf())
    engine = Engine(lambda _: time.sleep(0.05))
    with pytest.raises(OutputError, match="nobody reads"):
        workers.run(batch, lambda *_: engine)
    assert engine.closed
    assert not [each for each in threading.enumerate() if each.name.startswith("worker")]


@pytest.mark.timeout(30)
def test_the_last_worker_to_leave_ends_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LOOK", 600.0)  # nobody waits for the next look
    batch = _batch(make_texts(tmp_path / "in", 2), tmp_path / "out")
    workers.run(batch, lambda *_: Engine(), 2)
    assert [result.status for result in batch.report.results] == ["done"] * 2


def test_memory_is_told_by_the_system() -> None:
    before = workers.anonymous_memory()
    ballast = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE)  # not from what malloc keeps
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert workers.anonymous_memory() - before > 50 << 20


def test_no_worker_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="workers: 0"):
        workers.run(
            _batch(make_texts(tmp_path / "in", 1), tmp_path / "out"), lambda *_: Engine(), 0
        )
